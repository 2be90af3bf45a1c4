"""Settings that cannot be used are named, with the closest right one; sound ones pass."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, build_from_cfg
from torch import nn

from mmuniformer.apis.settings import named_settings, refuse_without_effect
from mmuniformer.errors import UserError

PIPELINE = [{'type': 'Load'}, {'type': 'Pack'}]
CFG = Config(
    {
        'pipeline': PIPELINE,
        'data_root': 'data/',
        'size': 2,
        'train_dataloader': {'batch_size': 2, 'dataset': {'pipeline': PIPELINE, 'root': 'data/'}},
        'optim_wrapper': {'optimizer': {'lr': 0.1}, 'loss_scale': 512.0},
        'param_scheduler': [{'end': 5}],
    }
)


@MODELS.register_module()
class Own(nn.Module):
    def __init__(self, width=1, **kwargs):
        super().__init__()
        if width < 1:
            raise ValueError(f'width={width}')
        self.inner = kwargs and build_from_cfg({'type': 'Inner', **kwargs}, MODELS)


@MODELS.register_module()
class Inner(nn.Module):
    def __init__(self, *, num_classes=1):
        super().__init__()


def build(options=None, building=True, **settings):
    with named_settings(CFG, options or {}, building):
        return MODELS.build({'type': 'Own', **settings})


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('num_clases', "^Inner has no argument 'num_clases': did you mean 'num_classes'"),
        ('x', "^Inner has no argument 'x': it has num_classes$"),
    ],
)
@pytest.mark.parametrize('building', [True, False])
def test_unknown_argument_is_named_with_the_closest(name, message, building):
    with pytest.raises(UserError, match=message):
        build(building=building, **{name: 3})


def test_what_cannot_be_built_is_named_and_other_errors_stay():
    with pytest.raises(UserError, match='^Own cannot be built: width=0$'):
        build(width=0)
    with pytest.raises(ValueError, match='^width=0$'):
        build(width=0, building=False)
    with pytest.raises(RuntimeError, match='out of memory'), named_settings(CFG, {}, True):
        raise RuntimeError('out of memory')


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ({'optim_wrapper.optimizer.lr': 'abc'}, "lr='abc', where the config has 0.1"),
        ({'train_dataloader.dataset.pipeline': None}, r'pipeline=None, where the config has \['),
        ({'param_scheduler.0.end': [1]}, r'param_scheduler.0.end=\[1\], where the config has 5'),
    ],
)
def test_option_of_another_kind_is_named_where_it_fails(option, message):
    message = rf'^--cfg-options .*{message}.* \(ValueError: deep\)$'
    with pytest.raises(UserError, match=message), named_settings(CFG, option, False):
        raise ValueError('deep')
    with named_settings(CFG, option, False):
        pass  # it may well be meant: loss_scale='dynamic'


@pytest.mark.parametrize(
    'option',
    [
        {'optim_wrapper.optimizer.lr': 1},
        {'optim_wrapper.optimizer.momentum': 'a'},
        {'train_dataloader.dataset.pipeline': ()},
        {'param_scheduler.9.end': 'a'},
    ],
)
def test_options_of_the_same_kind_are_not_blamed(option):
    with pytest.raises(ValueError, match='^deep$'), named_settings(CFG, option, False):
        raise ValueError('deep')


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('pipeline', 'pipeline is a variable .*: set train_dataloader.dataset.pipeline$'),
        ('pipeline.0.type', 'pipeline is a variable .*: set train_dataloader.dataset.pipeline$'),
        ('data_root', 'data_root is a variable .*: set train_dataloader.dataset.root$'),
        ('trian_dataloader.batch_size', 'did you mean train_dataloader?'),
        ('optim_wraper.optimizer.lr', 'did you mean optim_wrapper?'),
    ],
)
def test_options_without_effect_are_refused(key, message):
    with pytest.raises(UserError, match=f'^--cfg-options {key}: .*{message}'):
        refuse_without_effect(CFG, {key: 'other'})


@pytest.mark.parametrize(
    'key', ['train_dataloader.batch_size', 'load_from', 'size', 'own_switch', 'work_dir']
)
def test_other_options_pass(key):
    refuse_without_effect(CFG, {key: 'other'})
