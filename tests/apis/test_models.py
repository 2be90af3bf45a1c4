"""Configs by name and options, models with checkpoints."""

import dataclasses

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.apis.models import build_model, get_model, list_models
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import UniFormer
from mmuniformer.models.weights import catalog, files
from mmuniformer.models.weights.catalog import RELEASED_FILES

NANO = 'mask-rcnn_uniformer-nano_fpn_toy'


def bare(**kwargs):
    return Config({'model': {'type': 'mmuniformer.UniFormer', 'arch': 'nano', **kwargs}})


def test_configs_by_path_and_by_name_with_options():
    cfg = load_config(NANO, {'model.backbone.stage3_attn': 'window', 'randomness.seed': 7})
    assert cfg.model.backbone.stage3_attn == 'window'
    assert cfg.randomness.seed == 7
    assert load_config(cfg.filename).model.backbone.arch == 'nano'


def test_configs_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='^no-such: .* They are in '):
        load_config('no-such')
    with pytest.raises(UserError, match=f'The closest are {NANO}[.,]'):
        load_config(NANO.replace('nano', 'pico'))
    for text, reason in (('a = ', 'SyntaxError'), ('a = 1 / 0', 'ZeroDivisionError')):
        (tmp_path / 'broken.py').write_text(text)
        with pytest.raises(UserError, match=f'broken.py cannot be read: {reason}'):
            load_config(tmp_path / 'broken.py')
    (tmp_path / 'fine.py').write_text('a = [1]')
    with pytest.raises(UserError, match=r'--cfg-options does not fit .*fine.py'):
        load_config(tmp_path / 'fine.py', {'a.5': 1})


def test_model_with_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = build_model(bare())
    assert not model.training
    # Files without BatchNorm's counters are as good.
    state = {k: v + 1 for k, v in model.state_dict().items() if 'num_batches' not in k}
    meta = {'dataset_meta': {'classes': ('a', 'b')}}
    torch.save({'state_dict': state, 'meta': meta}, tmp_path / 'x.pth')
    loaded = build_model(bare(), tmp_path / 'x.pth')
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in state.items())
    assert loaded.dataset_meta == meta['dataset_meta']
    assert not hasattr(model, 'dataset_meta')
    with pytest.raises(CheckpointError, match='x.pth does not fit'):
        build_model(bare(arch='small'), tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'no\.pth does not exist'):
        build_model(bare(), tmp_path / 'no.pth')


@pytest.mark.parametrize(
    ('meta', 'kept'),
    [
        ('text', None),
        ([1], None),
        ({'dataset_meta': ['a']}, None),
        ({'dataset_meta': 'a'}, None),
        ({'dataset_meta': {'classes': 3, 'palette': 1}}, None),
        ({'dataset_meta': {'classes': [1, 2], 'palette': [(0, 0, 9)]}}, {'palette': [(0, 0, 9)]}),
        ({'dataset_meta': {1: 'a', 'classes': ['b']}}, {'classes': ['b']}),
        ({'dataset_meta': {'classes': ['b'], 'palette': [['x'] * 3]}}, {'classes': ['b']}),
        ({'dataset_meta': {'palette': 'coco'}}, {'palette': 'coco'}),
    ],
)
def test_metadata_of_odd_kinds_are_left_to_the_config(tmp_path, meta, kept):
    state = build_model(bare()).state_dict()
    torch.save({'state_dict': state, 'meta': meta}, tmp_path / 'x.pth')
    assert getattr(build_model(bare(), tmp_path / 'x.pth'), 'dataset_meta', None) == kept


def test_model_on_the_meta_device():
    model = build_model(bare(), device='meta')
    assert {value.device.type for value in model.state_dict().values()} == {'meta'}


def test_init_cfg_is_not_followed():
    build_model(bare(init_cfg={'type': 'Pretrained', 'checkpoint': 'no/such/file.pth'}))


def test_a_network_whose_train_returns_nothing(monkeypatch):
    """Those of mmpretrain."""
    train = UniFormer.train
    monkeypatch.setattr(UniFormer, 'train', lambda self, mode=True: train(self, mode) and None)
    model = build_model(bare())
    assert type(model) is UniFormer
    assert not model.training


def test_a_config_without_a_model():
    with pytest.raises(UserError, match='no `model`'):
        build_model(Config({}))


@pytest.mark.frameworks
def test_a_detector_in_the_scope_of_its_framework():
    pytest.importorskip('mmdet')
    model = build_model(load_config(NANO), device='meta')
    assert type(model).__name__ == 'MaskRCNN'
    assert type(model.backbone).__name__ == 'UniFormer'


def test_the_scope_ends_where_it_should():
    before = DefaultScope.get_current_instance()
    with scope_of(Config({'default_scope': 'mmengine'})):
        assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    after = DefaultScope.get_current_instance()
    assert (after and after.scope_name) == (before and before.scope_name)


def test_a_framework_that_does_not_import():
    with (
        pytest.raises(UserError, match='needs no_such_framework.*doctor'),
        scope_of(Config({'default_scope': 'no_such_framework'})),
    ):
        pass


def test_models_that_cannot_be_built_are_named():
    for wrong, reason in (
        ({'stage3_attn': 'foo'}, "stage3_attn='foo'"),
        ({'depth': 50}, "has no argument 'depth': did you mean 'depths'"),
        ({'type': 'UniTransformer'}, 'UniTransformer is not in'),
    ):
        with pytest.raises(UserError, match=reason):
            build_model(bare(**wrong))


def test_list_of_models_by_pattern():
    names = list_models()
    assert names[:2] == ['uniformer_nano', 'uniformer_small']
    assert NANO in names
    assert list_models('*small_plus*') == ['uniformer_small_plus']
    assert list_models('nothing*') == []
    assert len(list_models(pretrained=True)) == 19
    assert 'uniformer_base' in list_models('*base', pretrained=True)
    assert 'uniformer_large' not in list_models(pretrained=True)


def test_bare_backbone_with_weights_of_a_path(tmp_path):
    source = get_model('uniformer_nano', stage3_attn='window', window_size=2, out_indices=(1, 3))
    assert not source.training
    assert source.stage3_attn == 'window'
    maps = source(torch.rand(1, 3, 64, 96))
    assert [tuple(each.shape) for each in maps] == [(1, 32, 8, 12), (1, 128, 2, 3)]
    torch.save({'model': source.state_dict()}, tmp_path / 'x.pth')
    loaded = get_model('uniformer_nano', tmp_path / 'x.pth', out_indices=(1, 3))
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert loaded.stage3_attn == 'global'
    with pytest.raises(CheckpointError, match="arch='nano'"):
        get_model('uniformer_light_nano', tmp_path / 'x.pth')
    assert next(get_model('uniformer_large', device='meta').parameters()).is_meta


def test_released_weights_are_asked_for_by_true(monkeypatch, tmp_path):
    torch.save({'model': get_model('uniformer_light_nano').state_dict()}, tmp_path / 'x.pth')
    homes = ('hf://owner/repo/nano.pth',)
    file = dataclasses.replace(RELEASED_FILES[0], rows=('uniformer_light_nano',), homes=homes)
    monkeypatch.setattr(catalog, 'RELEASED_FILES', (file,))
    asked = []

    def fake(address):
        asked.append(address)
        return tmp_path / 'x.pth'

    monkeypatch.setattr(files, 'download', fake)
    get_model('uniformer_light_nano', pretrained=True)
    assert asked == list(homes)
    with pytest.raises(UserError, match='no released file of weights of uniformer_nano .*PATH'):
        get_model('uniformer_nano', pretrained=True)


def test_wrong_names_and_arguments_are_named():
    with pytest.raises(UserError, match='uniformer_smal: .*closest are uniformer_small'):
        get_model('uniformer_smal')
    with pytest.raises(TypeError, match="no argument 'depth': did you mean 'depths'"):
        get_model('uniformer_nano', depth=3)


@pytest.mark.frameworks
def test_model_of_a_shipped_config_in_another_layout(tmp_path):
    pytest.importorskip('mmdet')
    model = get_model(NANO, stage3_attn='window', window_size=4)
    assert type(model).__name__ == 'MaskRCNN'
    assert (model.backbone.stage3_attn, model.backbone.window_size) == ('window', 4)
    assert model.cfg.model.backbone.stage3_attn == 'window'
    assert model.dataset_meta['classes'] == ('person', 'box', 'ball')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'x.pth')
    loaded = get_model(NANO, tmp_path / 'x.pth')
    assert torch.equal(loaded.backbone.norm1.weight, model.backbone.norm1.weight)
    with pytest.raises(CheckpointError, match='does not fit'):
        get_model(NANO, tmp_path / 'x.pth', arch='small')
