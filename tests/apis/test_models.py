"""Configs by name and options, models with checkpoints."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.errors import CheckpointError, UserError

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


def test_model_on_the_meta_device():
    model = build_model(bare(), device='meta')
    assert {value.device.type for value in model.state_dict().values()} == {'meta'}


def test_init_cfg_is_not_followed():
    build_model(bare(init_cfg={'type': 'Pretrained', 'checkpoint': 'no/such/file.pth'}))


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
