"""Weight files: reading them safely, loading backbones, refusing what does not fit."""

import argparse
import json
import logging
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from mmuniformer.compat import TORCH_HAS_ALLOW_LIST
from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.arch import UNIFORMER, UNIFORMER_LIGHT
from mmuniformer.models.weights.files import load_state_dict_file
from mmuniformer.models.weights.load import load_pretrained
from mmuniformer.models.weights.released import (
    backbone_state,
    guess_preset,
    head_dim_by_name,
    spec_of,
)

RELEASED = Path(__file__).resolve().parents[2] / 'golden' / 'uniformer_small_tl_keys.json'
"""Keys and shapes of a released file."""


@pytest.fixture(scope='module', autouse=True)
def quick_initial_weights():
    """Truncated normal numbers take most of the time of a model that is to be loaded anyway."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, 'trunc_normal_', lambda x, std: nn.init.normal_(x, std=std))
        yield


def imagenet_state(model, classes=10):
    """What an ImageNet file of this network holds: no output norms, a classifier."""
    state = OrderedDict((k, v) for k, v in model.state_dict().items() if not k.startswith('norm'))
    width = model.embed_dims[-1]
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        state[f'norm.{name}'] = torch.rand(width)
    state['norm.num_batches_tracked'] = torch.tensor(7)
    state['head.weight'], state['head.bias'] = torch.rand(classes, width), torch.rand(classes)
    return state


def randomize(model):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else tensor + 3)
    return model


def save(path, raw):
    torch.save(raw, path)
    return str(path)


def blank(*args, kind=UniFormer, **kwargs):
    """A model whose weights nobody spent time on."""
    with torch.device('meta'):
        model = kind(*args, **kwargs)
    model.to_empty(device='cpu')
    for tensor in model.state_dict().values():
        tensor.zero_()  # memory as it comes may hold NaN, which files must not
    return model


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_unchanged(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def refused(model, path, *words, **kwargs):
    """Loading raises with these words in the message and leaves the model as it was."""
    before = snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, path, **kwargs)
    assert_unchanged(model, before)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    return message


@pytest.fixture(scope='module')
def nano(quick_initial_weights):
    torch.manual_seed(0)
    return randomize(UniFormer('nano'))


@pytest.fixture
def log(monkeypatch):
    """The lines that go to mmengine's current logger, from INFO up."""
    lines = []

    def keep(level, text, *args, **kwargs):
        if level >= logging.INFO:
            lines.append((level, str(text)))

    logger = MMLogger.get_instance('test_checkpoints')
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    monkeypatch.setattr(logger, 'log', keep)
    return lines


WRAPPERS = {
    'model': lambda state: {'model': state, 'epoch': 299},
    'state_dict': lambda state: {'state_dict': state, 'meta': {'epoch': 1}},
    'bare': lambda state: state,
    'module': lambda state: {'state_dict': OrderedDict((f'module.{k}', state[k]) for k in state)},
    'backbone': lambda state: {
        'state_dict': {
            **{f'backbone.{k}': v for k, v in state.items()},
            'neck.lateral_convs.0.conv.weight': torch.rand(4, 4, 1, 1),
            'rpn_head.rpn_cls.bias': torch.rand(3),
        }
    },
    'module and backbone': lambda state: {
        'model': {f'module.backbone.{k}': v for k, v in state.items()}
    },
}


class TestKindsOfFiles:
    @pytest.mark.parametrize('kind', WRAPPERS)
    def test_backbone_of_every_kind_of_file(self, nano, kind):
        state = imagenet_state(nano)
        found = backbone_state(WRAPPERS[kind](state))
        assert list(found) == list(state)
        assert all(found[name] is state[name] for name in state)

    @pytest.mark.parametrize('kind', WRAPPERS)
    def test_loads_every_kind_of_file(self, nano, tmp_path, kind):
        model = UniFormer('nano')
        norms = {k: v.clone() for k, v in model.state_dict().items() if k.startswith('norm')}
        path = save(tmp_path / 'weights.pth', WRAPPERS[kind](imagenet_state(nano)))
        match = load_pretrained(model, path)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, norms.get(name, nano.state_dict()[name])), name
        assert len(match.loaded) == len(model.state_dict()) - 8
        assert sorted(match.missing) == sorted(norms)

    def test_whole_model_brings_its_output_norms(self, nano, tmp_path):
        model = UniFormer('nano')
        path = save(tmp_path / 'detector.pth', WRAPPERS['backbone'](nano.state_dict()))
        match = load_pretrained(model, path)
        assert_unchanged(model, nano.state_dict())
        assert match.missing == ()

    def test_prefix_names_another_place(self, nano, tmp_path):
        raw = {'state_dict': {f'detector.net.{k}': v for k, v in nano.state_dict().items()}}
        path = save(tmp_path / 'x.pth', raw)
        model = UniFormer('nano')
        load_pretrained(model, path, prefix='detector.net')
        assert_unchanged(model, nano.state_dict())
        with pytest.raises(CheckpointError, match='no key .* starts with .*student'):
            load_pretrained(model, path, prefix='student.')

    def test_hourglass_file_with_its_two_classifiers(self, tmp_path, log):
        source = randomize(UniFormerLight('nano'))
        state = imagenet_state(source)
        width = source.embed_dims[-1]
        state |= {'norm_cls.weight': torch.rand(width), 'norm_cls.bias': torch.rand(width)}
        state |= {'head_cls.weight': torch.rand(9, width), 'head_cls.bias': torch.rand(9)}
        model = UniFormerLight('nano')
        load_pretrained(model, save(tmp_path / 'light.pth', {'model': state}))
        assert torch.equal(model.cls_token, source.cls_token)
        assert torch.equal(model.cls_upsample.weight, source.cls_upsample.weight)
        assert 'not used, as expected: norm, head, norm_cls, head_cls' in log[-1][1]

    def test_half_precision_file(self, nano, tmp_path):
        half = {
            k: v.half() if v.is_floating_point() else v for k, v in imagenet_state(nano).items()
        }
        model = UniFormer('nano')
        load_pretrained(model, save(tmp_path / 'half.pth', half))
        name = 'blocks3.0.attn.qkv.weight'
        assert model.state_dict()[name].dtype == torch.float32
        assert torch.equal(model.state_dict()[name], half[name].float())

    def test_stages_that_are_not_built(self, tmp_path):
        source = randomize(UniFormerLight('nano'))
        path = save(tmp_path / 'light.pth', {'model': imagenet_state(source)})
        model = UniFormerLight('nano', out_indices=(1,))
        match = load_pretrained(model, path)
        assert {name.partition('.')[0] for name in match.unused} == {
            *('cls_token', 'patch_embed3', 'patch_embed4', 'blocks3', 'blocks4'),
            *('cls_upsample', 'norm', 'head'),
        }
        assert torch.equal(model.blocks2[0].conv1.weight, source.blocks2[0].conv1.weight)

    def test_counters_may_lack(self, nano, tmp_path):
        state = {k: v for k, v in imagenet_state(nano).items() if 'num_batches' not in k}
        match = load_pretrained(UniFormer('nano'), save(tmp_path / 'x.pth', state))
        assert any(name.endswith('num_batches_tracked') for name in match.missing)

    def test_options_of_a_training_script_do_no_harm(self, nano, tmp_path):
        raw = {'model': imagenet_state(nano), 'args': argparse.Namespace(lr=1e-3)}
        load_pretrained(UniFormer('nano'), save(tmp_path / 'x.pth', raw))

    def test_through_the_registry(self, nano, tmp_path):
        path = save(tmp_path / 'weights.pth', {'model': imagenet_state(nano)})
        cfg = {'type': 'Pretrained', 'checkpoint': path}
        model = MODELS.build({'type': 'mmuniformer.UniFormer', 'arch': 'nano', 'init_cfg': cfg})
        model.init_weights()
        assert torch.equal(model.blocks4[0].attn.qkv.bias, nano.blocks4[0].attn.qkv.bias)


class TestReport:
    def test_one_short_line(self, nano, tmp_path, log):
        state = imagenet_state(nano) | {'aux_head.weight': torch.rand(3, 128)}
        load_pretrained(UniFormer('nano'), save(tmp_path / 'weights.pth', {'model': state}))
        total = len(nano.state_dict())
        assert log == [
            (
                logging.INFO,
                f'weights.pth (UniFormer nano): loaded {total - 8} of {total} backbone tensors; '
                'not in the file, as expected: norm1, norm2, norm3, norm4; '
                'not used, as expected: norm, head, aux_head',
            )
        ]


class TestRefused:
    def test_missing_file(self, tmp_path):
        refused(UniFormer('nano'), str(tmp_path / 'none.pth'), 'does not exist', 'path')
        refused(UniFormer('nano'), str(tmp_path), 'is a folder')
        refused(UniFormer('nano'), 's3://bucket/x.pth', 'https://')

    @pytest.mark.parametrize('share', [0.0, 0.001, 0.5, 0.99])
    def test_truncated(self, nano, tmp_path, share):
        whole = Path(save(tmp_path / 'whole.pth', {'model': nano.state_dict()})).read_bytes()
        path = tmp_path / 'part.pth'
        path.write_bytes(whole[: int(share * len(whole))])
        refused(UniFormer('nano'), str(path), 'truncated', 'copy the file again')

    @pytest.mark.parametrize('share', [0.2, 0.9])
    def test_truncated_legacy_format(self, nano, tmp_path, share):
        path = tmp_path / 'old.pth'
        torch.save({'model': nano.state_dict()}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        refused(UniFormer('nano'), str(path), 'truncated')

    @pytest.mark.parametrize(
        ('content', 'word'),
        [
            (b'<!DOCTYPE html><html>Google Drive - Virus scan warning</html>', 'web page'),
            (b'\n <html>', 'web page'),
            (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a', 'git LFS'),
            (b'just some text, long enough to be read', 'no PyTorch checkpoint'),
            (bytes(range(256)) * 4, 'no PyTorch checkpoint'),
        ],
    )
    def test_no_checkpoint(self, tmp_path, content, word):
        path = tmp_path / 'view.pth'
        path.write_bytes(content)
        refused(UniFormer('nano'), str(path), word)

    @pytest.mark.parametrize('raw', [{}, {'model': {}}, [1, 2], {'epoch': 3, 'lr': 0.1}, 'text'])
    def test_no_tensors(self, tmp_path, raw):
        refused(UniFormer('nano'), save(tmp_path / 'x.pth', raw), 'holds no weights')

    def test_other_network(self, tmp_path):
        state = {'layer1.0.conv1.weight': torch.rand(4, 4, 3, 3), 'fc.weight': torch.rand(10, 4)}
        path = save(tmp_path / 'resnet.pth', {'state_dict': state})
        refused(UniFormer('nano'), path, 'no UniFormer backbone', 'layer1, fc')

    def test_video_network(self, nano, tmp_path):
        state = {k: v[:, :, None] if v.ndim == 4 else v for k, v in imagenet_state(nano).items()}
        refused(UniFormer('nano'), save(tmp_path / 'k400.pth', {'model': state}), 'video')

    def test_other_arch_names_the_right_one(self, tmp_path):
        with torch.device('meta'):
            shapes = UniFormer('base').state_dict()
        state = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
        message = refused(
            UniFormer('nano'),
            save(tmp_path / 'x.pth', {'model': state}),
            "arch='base'",
            'depths=(5, 8, 20, 7)',
            'depths=(1, 2, 4, 1)',
            'patch_embed1.norm.weight (file (64,), model (16,))',
            'Only ',
        )
        assert len(message) < 2000

    def test_conv_stem(self, nano, tmp_path):
        path = save(tmp_path / 'x.pth', {'model': imagenet_state(nano)})
        model = UniFormer('nano', conv_stem=True)
        refused(model, path, 'conv_stem=(False, False, False, False)', "arch='nano'")

    def test_hourglass_file_into_uniformer(self, tmp_path):
        state = imagenet_state(UniFormerLight('nano'))
        path = save(tmp_path / 'x.pth', {'model': state})
        words = ('The file has a class token', "type='mmuniformer.UniFormerLight', arch='nano'")
        refused(UniFormer('nano'), path, *words)

    def test_layer_scale_in_the_file_only(self, tmp_path):
        source = UniFormer('nano', layer_scale_init_value=(0, 0, 1e-6, 1e-6))
        path = save(tmp_path / 'x.pth', {'model': imagenet_state(source)})
        words = ('gamma_1', 'in stages 3, 4', 'layer_scale_init_value=(0, 0, 1e-06, 1e-06)')
        refused(UniFormer('nano'), path, *words)
        load_pretrained(source, path)

    def test_layer_scale_of_base_names_base_ls(self, tmp_path):
        with torch.device('meta'):
            shapes = UniFormer('base_ls').state_dict()
        state = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
        path = save(tmp_path / 'x.pth', {'model': state})
        with pytest.raises(CheckpointError, match="arch='base_ls'"):
            load_pretrained(blank('base'), path)

    def test_layer_scale_in_the_model_only(self, nano, tmp_path):
        path = save(tmp_path / 'x.pth', {'model': imagenet_state(nano)})
        model = UniFormer('nano', layer_scale_init_value=1e-6)
        refused(model, path, 'gamma_1', 'nowhere', "arch='nano'", 'layer_scale_init_value=(0, 0')

    def test_in_channels(self, nano, tmp_path):
        path = save(tmp_path / 'x.pth', {'model': imagenet_state(nano)})
        refused(UniFormer('nano', in_channels=4), path, 'Set in_channels=3')

    @pytest.mark.parametrize('name', ['blocks3.1.attn.qkv.bias', 'patch_embed2.norm.weight'])
    def test_a_single_name_missing(self, nano, tmp_path, name):
        state = imagenet_state(nano)
        del state[name]
        refused(UniFormer('nano'), save(tmp_path / 'x.pth', {'model': state}), name)

    def test_a_single_name_too_many(self, nano, tmp_path):
        state = imagenet_state(nano) | {'blocks3.0.attn.relative': torch.rand(2)}
        words = ('Unknown to the backbone: blocks3.0.attn.relative',)
        refused(UniFormer('nano'), save(tmp_path / 'x.pth', {'model': state}), *words)

    def test_a_single_shape(self, nano, tmp_path):
        state = imagenet_state(nano) | {'blocks3.0.attn.proj.bias': torch.rand(63)}
        words = ('blocks3.0.attn.proj.bias (file (63,), model (64,))',)
        refused(UniFormer('nano'), save(tmp_path / 'x.pth', {'model': state}), *words)


class Malicious:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class TestMaliciousFile:
    @pytest.mark.parametrize('zipped', [True, False])
    def test_no_code_runs(self, nano, tmp_path, zipped):
        mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
        raw = {'model': imagenet_state(nano), 'extra': Malicious(mark)}
        torch.save(raw, path, _use_new_zipfile_serialization=zipped)
        refused(UniFormer('nano'), str(path), 'mkdir', 'more than weights')
        assert not mark.exists()
        torch.load(path, weights_only=False)
        assert mark.exists()  # it would have run

    def test_plain_pickle(self, tmp_path):
        mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
        path.write_bytes(pickle.dumps(Malicious(mark), protocol=2))
        refused(UniFormer('nano'), str(path))
        assert not mark.exists()

    def test_more_than_the_memory_is_refused(self, tmp_path):
        class Huge:
            def __reduce__(self):
                return bytearray, (1 << 60,)

        path = save(tmp_path / 'huge.pth', {'a': torch.rand(1), 'b': Huge()})
        with pytest.raises(CheckpointError, match='huge.pth (is truncated|holds more)'):
            load_state_dict_file(path)

    def test_options_bring_nothing_else_in(self, tmp_path):
        mark = tmp_path / 'executed'
        raw = {'model': {'a': torch.rand(1)}, 'args': argparse.Namespace(x=Malicious(mark))}
        refused(UniFormer('nano'), save(tmp_path / 'evil.pth', raw), 'mkdir')
        assert not mark.exists()


class TestUrl:
    @pytest.fixture
    def put(self, server, tmp_path):
        """Give content an address on localhost."""

        def put(name, raw):
            torch.save(raw, tmp_path / name)
            server.files[f'/{name}'] = (tmp_path / name).read_bytes()
            return f'{server.url}/{name}'

        return put

    def test_loads_and_keeps(self, nano, server, put):
        url = put('weights.pth', {'model': imagenet_state(nano)})
        model = UniFormer('nano')
        load_pretrained(model, url)
        assert torch.equal(model.blocks1[0].conv1.weight, nano.blocks1[0].conv1.weight)
        server.files.clear()
        load_pretrained(UniFormer('nano'), url)  # from the cache

    def test_no_code_runs(self, put, tmp_path):
        mark = tmp_path / 'executed'
        url = put('evil.pth', {'a': torch.rand(1), 'b': Malicious(mark)})
        refused(UniFormer('nano'), url, 'mkdir')
        assert not mark.exists()

    def test_not_there(self, server):
        refused(UniFormer('nano'), f'{server.url}/none.pth', '404', 'check the address')

    def test_web_page_is_not_kept(self, server, tmp_path):
        server.files = {'/view': b'<html>Sign in</html>'}
        refused(UniFormer('nano'), f'{server.url}/view', 'web page')
        assert not list((tmp_path / 'cache').rglob('[!.]*_view'))

    def test_damaged_file_names_the_copy(self, server, tmp_path):
        server.files = {'/x.pth': b'no checkpoint at all'}
        message = refused(UniFormer('nano'), f'{server.url}/x.pth', 'no PyTorch checkpoint')
        kept = next((tmp_path / 'cache').rglob('[!.]*_x.pth'))
        assert f'kept as {kept}' in message


@pytest.fixture(scope='module')
def files(tmp_path_factory, nano):
    """The same weights under names that tell a head_dim and under one that does not."""
    folder = tmp_path_factory.mktemp('files')
    names = ('uniformer_small_tl_224.pth', 'uniformer_small_dim64_tl_224.pth', 'plain.pth')
    return {name: save(folder / name, {'model': imagenet_state(nano)}) for name in names}


class TestHeadDim:
    @pytest.mark.parametrize(
        ('name', 'dim'),
        [
            ('uniformer_small_tl_224.pth', 32),
            ('uniformer_small_plus_tl_384.pth', 32),
            ('uniformer_base_tl_224.pth', 32),
            ('https://example.org/a/uniformer_base_tl_384.pth?download=true', 32),
            ('/data/token_label/x/Small-Token-Labeling.pth', 32),
            ('uniformer_small_dim64_tl_224.pth', 64),
            ('uniformer_small_plus_dim64_tl_224.pth', 64),
            ('uniformer_base_dim64_tl_224.pth', 64),
            ('uniformer_small_plus_dim64_in1k.pth', 64),
            ('uniformer_small_plus_in1k.pth', 32),
            ('uniformer_large_ls_tl_224.pth', 64),
            ('uniformer_small_in1k.pth', 64),
            ('uniformer_base_in1k.pth', 64),
            ('uniformer_base_ls_in1k.pth', 64),
            ('my_head_dim32.pth', 32),
            ('uniformer_xxs_160_in1k.pth', None),
            ('/data/dim64/token_label/epoch_12.pth', None),
            ('title_atlas_dim512.pth', None),
        ],
    )
    def test_what_names_tell(self, name, dim):
        assert head_dim_by_name(name) == dim

    def test_known_by_name(self, files):
        path = files['uniformer_small_tl_224.pth']
        words = ('head_dim 32', 'name', 'Set head_dim=32', '--head-dim 64')
        refused(UniFormer('nano', head_dim=64), path, *words)
        load_pretrained(UniFormer('nano', head_dim=32), path)

    def test_the_other_way_round(self, files):
        path = files['uniformer_small_dim64_tl_224.pth']
        refused(UniFormer('nano', head_dim=32), path, 'head_dim 64', 'Set head_dim=64')
        load_pretrained(UniFormer('nano', head_dim=64), path)

    def test_known_by_argument(self, files):
        model = UniFormer('nano', head_dim=64)
        refused(model, files['plain.pth'], 'head_dim 32', 'init_cfg.head_dim', head_dim=32)
        load_pretrained(model, files['plain.pth'], head_dim=64)

    def test_argument_overrides_the_name(self, files):
        model = UniFormer('nano', head_dim=64)
        load_pretrained(model, files['uniformer_small_tl_224.pth'], head_dim=64)

    def test_argument_in_init_cfg(self, files):
        cfg = {'type': 'Pretrained', 'checkpoint': files['plain.pth'], 'head_dim': 32}
        model = UniFormer('nano', head_dim=64, init_cfg=cfg)
        with pytest.raises(CheckpointError, match='head_dim 32'):
            model.init_weights()

    def test_unknown_passes(self, files):
        load_pretrained(UniFormer('nano', head_dim=64), files['plain.pth'])

    def test_token_labeled_classifier_alone_warns(self, tmp_path, log):
        model = blank('small')
        state = imagenet_state(model) | {'aux_head.weight': torch.rand(3, 512)}
        path = save(tmp_path / 'renamed.pth', {'model': state})
        load_pretrained(model, path)
        assert [level for level, _ in log] == [logging.WARNING, logging.INFO]
        assert 'head_dim 32' in log[0][1]
        log.clear()
        load_pretrained(model, path, head_dim=64)
        assert [level for level, _ in log] == [logging.INFO]


class TestPresets:
    @pytest.mark.parametrize('name', UNIFORMER)
    def test_every_preset_is_recognised(self, name):
        with torch.device('meta'):
            model = UniFormer(name)
        assert guess_preset(spec_of(model.state_dict())) == ('UniFormer', name)

    @pytest.mark.parametrize('name', UNIFORMER_LIGHT)
    def test_every_hourglass_preset_is_recognised(self, name):
        with torch.device('meta'):
            model = UniFormerLight(name)
        assert guess_preset(spec_of(model.state_dict())) == ('UniFormerLight', name)

    def test_none_fits(self):
        assert guess_preset(spec_of(UniFormer('nano', depths=(1, 1, 1, 1)).state_dict())) is None

    def test_released_keys_load(self, tmp_path):
        shapes = json.loads(RELEASED.read_text())
        state = {k: torch.zeros(()).expand(shape) for k, shape in shapes.items()}
        path = save(tmp_path / 'uniformer_small_tl_224.pth', {'model': state})
        model = blank('small', head_dim=32)
        match = load_pretrained(model, path)
        assert all((v == 0).all() for k, v in model.state_dict().items() if k[:4] != 'norm')
        assert len(match.loaded) == 324
        assert {n.partition('.')[0] for n in match.unused} == {'norm', 'head', 'aux_head'}


def test_load_state_dict_file_returns_what_is_there(tmp_path):
    raw = {'state_dict': {'a': torch.arange(3)}, 'meta': {'epoch': 4}}
    found = load_state_dict_file(save(tmp_path / 'x.pth', raw))
    assert torch.equal(found['state_dict']['a'], torch.arange(3))
    assert found['meta'] == {'epoch': 4}


class TestTensorsOfNoUse:
    def refuse(self, tmp_path, state, text):
        path = save(tmp_path / 'weights.pth', {'state_dict': state})
        with pytest.raises(CheckpointError, match=rf'weights\.pth: {text}'):
            load_state_dict_file(path)

    @pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
    def test_nan_and_inf(self, tmp_path, value):
        state = {'a.weight': torch.ones(2), 'b.weight': torch.tensor([1.0, value])}
        self.refuse(tmp_path, state, 'b.weight hold NaN or Inf.* Use an earlier checkpoint')
        state['c.bias'] = torch.full((3,), value, dtype=torch.bfloat16)
        self.refuse(tmp_path, state, 'b.weight and 1 more tensors hold')

    def test_masks_of_attention_hold_inf(self, tmp_path):
        state = {'a.weight': torch.ones(2), 'attn_mask': torch.full((2, 2), -float('inf'))}
        load_state_dict_file(save(tmp_path / 'weights.pth', {'state_dict': state}))

    def test_sparse(self, tmp_path):
        for tensor in (torch.eye(3).to_sparse(), torch.eye(3).to_sparse_csr()):
            self.refuse(tmp_path, {'a.weight': tensor}, r'a.weight is a tensor sparse \(')

    def test_meta(self, tmp_path):
        tensor = torch.ones(3, device='meta')
        self.refuse(tmp_path, {'a.weight': tensor}, 'a.weight is a tensor without values')

    @pytest.mark.skipif(not TORCH_HAS_ALLOW_LIST, reason='this torch makes them by a call')
    def test_quantized(self, tmp_path):
        tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        self.refuse(tmp_path, {'a.weight': tensor}, 'a.weight is a tensor quantized')
