"""Weight files by ``init_cfg`` and ``load_state_dict``: every form is checked alike."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, ConstantInit, PretrainedInit
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer, UniFormerLight


class Segmentor(BaseModel):
    def __init__(self, init_cfg=None, **backbone):
        super().__init__(init_cfg=init_cfg)
        self.backbone = UniFormer('nano', **backbone)
        self.decode_head = nn.Conv2d(128, 3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


DEEPER = {'depths': (1, 2, 6, 1)}
"""A network that has all keys of nano and the same widths, as base has those of small."""


@pytest.fixture(scope='module')
def save(tmp_path_factory):
    folder = tmp_path_factory.mktemp('files')

    def write(name, content):
        torch.save(content, folder / name)
        return str(folder / name)

    return write


@pytest.fixture(scope='module')
def fitting(save):
    return save('fitting.pth', {'model': UniFormer('nano').state_dict()})


@pytest.fixture(scope='module')
def deeper(save):
    return save('deeper.pth', {'model': UniFormer('nano', **DEEPER).state_dict()})


FORMS = {
    'a name': lambda path: {'type': 'Pretrained', 'checkpoint': path},
    'a scoped name': lambda path: {'type': 'mmengine.Pretrained', 'checkpoint': path},
    'a path': lambda path: {'type': 'mmengine.model.PretrainedInit', 'checkpoint': path},
    'a class': lambda path: {'type': PretrainedInit, 'checkpoint': path},
    'a list': lambda path: [{'type': 'Pretrained', 'checkpoint': path}],
    'a list of a class': lambda path: [{'type': PretrainedInit, 'checkpoint': path}],
    'a config': lambda path: ConfigDict(type='Pretrained', checkpoint=path, map_location='cpu'),
    'first of two': lambda path: [
        {'type': 'Pretrained', 'checkpoint': path},
        {'type': 'Constant', 'layer': 'Linear', 'val': 0.5},
    ],
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_is_checked(form, fitting, deeper):
    model = UniFormer('nano', init_cfg=FORMS[form](deeper))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r'depths=\(1, 2, 6, 1\)'):
        model.init_weights()
    if form != 'first of two':
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model = UniFormer('nano', init_cfg=FORMS[form](fitting))
    model.init_weights()
    expected = torch.load(fitting, weights_only=True)['model']
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_prefix_and_head_dim_reach_the_file(save):
    state = {f'student.{k}': v for k, v in UniFormer('nano').state_dict().items()}
    cfg = {'type': 'Pretrained', 'checkpoint': save('student.pth', state), 'prefix': 'student.'}
    UniFormer('nano', init_cfg=[cfg]).init_weights()
    with pytest.raises(CheckpointError, match='head_dim 64 .*init_cfg.head_dim'):
        UniFormer('nano', init_cfg=[{**cfg, 'head_dim': 64}]).init_weights()


def test_other_initializers_run_first_and_no_file_is_an_option():
    cfg = [
        {'type': 'Pretrained', 'checkpoint': None},
        {'type': ConstantInit, 'layer': 'Linear', 'val': 0.5},
    ]
    model = UniFormer('nano', init_cfg=cfg)
    model.init_weights()
    assert (model.blocks3[0].mlp.fc1.weight == 0.5).all()
    assert model.init_cfg == cfg


def test_once_is_enough(fitting):
    """The runner initializes models that a script has initialized before."""
    model = UniFormer('nano', init_cfg={'type': 'Pretrained', 'checkpoint': fitting})
    model.init_weights()
    with torch.no_grad():
        model.norm1.weight.fill_(3)
    model.init_weights()
    assert (model.norm1.weight == 3).all()


def test_whole_model_of_another_network_is_refused_by_its_init_cfg(save):
    path = save('segmentor.pth', {'state_dict': Segmentor(**DEEPER).state_dict()})
    model = Segmentor(init_cfg={'type': 'Pretrained', 'checkpoint': path})
    with pytest.raises(CheckpointError, match=r'depths=\(1, 2, 6, 1\)'):
        model.init_weights()


def test_whole_model_of_another_network_is_refused_by_mmengine(save):
    """As ``init_detector`` and the other inferencers load."""
    own = save('own.pth', {'state_dict': Segmentor().state_dict()})
    load_checkpoint(Segmentor(), own)
    for other in (DEEPER, {'embed_dims': (16, 32, 64, 96)}, {'in_channels': 4}):
        path = save('other.pth', {'state_dict': Segmentor(**other).state_dict()})
        with pytest.raises(CheckpointError, match='the state dict does not fit'):
            load_checkpoint(Segmentor(), path)


def test_additional_keys_of_an_adapter_are_left_to_the_caller():
    model = Segmentor()
    plain = model.state_dict()
    model.backbone.blocks3[0].attn.qkv.register_parameter('lora', nn.Parameter(torch.ones(2)))
    load_state_dict(model, plain)


@pytest.mark.parametrize('part', ['backbone.blocks3.0.', 'backbone.blocks3.3.', 'backbone.norm'])
def test_parts_are_left_to_the_caller(part):
    """Trained layers, for example, may be all that a file of an adapter holds."""
    given = {
        key: torch.full_like(value, 3)
        for key, value in Segmentor().state_dict().items()
        if key.startswith(part)
    }
    for load in (load_state_dict, Segmentor.load_state_dict):
        model = Segmentor()
        load(model, given, strict=False)
        assert all((model.state_dict()[key] == 3).all() for key in given)


def test_unused_stages_of_a_file_are_no_other_network():
    state = UniFormerLight('nano').state_dict()
    model = UniFormerLight('nano', out_indices=(1,))
    load_state_dict(model, state)
    assert torch.equal(model.norm2.weight, state['norm2.weight'])


class TestDeployed:
    @pytest.fixture
    def deployed(self):
        model = Segmentor().eval()
        model.backbone.switch_to_deploy()
        return model

    def test_weights_of_other_parts_load(self, deployed):
        head = {'decode_head.bias': torch.full((3,), 2.0)}
        deployed.load_state_dict(head, strict=False)
        assert deployed.decode_head.bias.tolist() == [2.0] * 3

    def test_both_forms_keep_apart(self, deployed):
        plain = Segmentor()
        with pytest.raises(CheckpointError, match='plain weights do not go into a deployed'):
            deployed.load_state_dict(plain.state_dict(), strict=False)
        with pytest.raises(CheckpointError, match='deployed weights do not go into a plain'):
            plain.load_state_dict(deployed.state_dict(), strict=False)
        some = {'backbone.patch_embed1.proj.bias': torch.zeros(16)}
        with pytest.raises(CheckpointError, match='plain weights'):
            deployed.load_state_dict(some, strict=False)

    def test_own_form_loads(self, deployed):
        other = Segmentor().eval()
        other.backbone.switch_to_deploy()
        other.load_state_dict(deployed.state_dict())
        assert torch.equal(other.backbone.norm1.weight, deployed.backbone.norm1.weight)

    def test_deployed_file_is_named_so(self, deployed, save):
        path = save('deployed.pth', deployed.state_dict())
        model = UniFormer('nano', init_cfg={'type': 'Pretrained', 'checkpoint': path})
        with pytest.raises(CheckpointError, match='deployed weights'):
            model.init_weights()
