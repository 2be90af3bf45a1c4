"""Training and testing of configs: what arguments change in them, and refusals."""

import contextlib
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper

from mmuniformer.apis import train as api
from mmuniformer.errors import UserError

CONFIG = """
default_scope = {scope!r}
model = dict(type='Model', backbone=dict(depth=1))
optim_wrapper = dict(type={wrapper!r}, optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(visualization=dict(type='Hook'))
visualizer = dict(type='Visualizer')
test_dataloader = dict(dataset=dict(type='Data', pipeline=[dict(type='Load')]))
test_evaluator = dict(type='Metric')
auto_scale_lr = dict(base_batch_size=16)
"""
NEW_STYLE = """
from mmengine.config import read_base
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import {wrapper}

default_scope = None
model = dict(type='mmdet.Model')
optim_wrapper = dict(type={wrapper}, optimizer=dict(type='SGD', lr=0.1))
default_hooks = dict(visualization=dict(type=Hook))
test_evaluator = [dict(type='Metric')]
"""


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Configs that runners were built from, and which of train and test was called."""
    configs = []

    class Runner:
        def __init__(self, cfg):
            configs.append(cfg)

        def train(self):
            configs.append('train')
            return 'a model'

        def test(self):
            configs.append('test')
            return {'AP': 0.5}

    monkeypatch.setattr(api.RUNNERS, 'build', Runner)
    monkeypatch.setattr(api, 'scope_of', contextlib.nullcontext)
    monkeypatch.chdir(tmp_path)
    return configs


@pytest.fixture
def config(tmp_path):
    """Write a config; its name is 'some.py'."""

    def write(scope='mmdet', wrapper='OptimWrapper', more='', text=CONFIG):
        path = tmp_path / 'some.py'
        path.write_text(text.format(scope=scope, wrapper=wrapper) + more)
        return str(path)

    return write


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'some.pth'
    path.touch()
    return str(path)


def test_training_takes_the_settings_of_the_config(built, config):
    assert api.train(config(), work_dir='here') == 'a model'
    cfg, call = built
    assert call == 'train'
    assert (cfg.launcher, cfg.work_dir) == ('none', 'here')
    assert cfg.get('resume') is None
    assert cfg.optim_wrapper.type == 'OptimWrapper'


def test_evaluation_takes_the_settings_of_the_config(built, config, weights):
    assert api.evaluate(config(), weights) == {'AP': 0.5}
    cfg, call = built
    assert call == 'test'
    assert cfg.load_from == weights
    assert cfg.work_dir == os.path.join('work_dirs', 'some')
    assert 'draw' not in cfg.default_hooks.visualization


def test_evaluation_does_not_resume(built, config, weights):
    """mmengine would ask the weights for the state of a training run."""
    api.evaluate(config(more='resume = True'), weights)
    assert built[0].resume is False


def test_work_dir_of_the_config_is_kept(built, config, tmp_path):
    api.train(config(more=f'work_dir = {str(tmp_path / "mine")!r}'))
    assert built[0].work_dir == str(tmp_path / 'mine')


def test_arguments_reach_the_config(built, config):
    options = {'model.backbone.depth': 3, 'optim_wrapper.optimizer.lr': 0.5}
    path = config()
    api.train(path, amp=True, auto_scale_lr=True, launcher='pytorch', cfg_options=options)
    cfg = built[0]
    assert cfg.model.backbone.depth == 3
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.auto_scale_lr.enable is True
    assert cfg.launcher == 'pytorch'
    assert Config.fromfile(path).optim_wrapper.type == 'OptimWrapper'


def test_amp_keeps_the_loss_scale_of_the_config(built, config):
    api.train(config(), amp=True, cfg_options={'optim_wrapper.loss_scale': 512.0})
    assert built[0].optim_wrapper.loss_scale == 512.0


def test_amp_changes_nothing_where_it_is_on(built, config):
    api.train(config(wrapper='AmpOptimWrapper'), amp=True)
    assert built[0].optim_wrapper.type == 'AmpOptimWrapper'
    assert 'loss_scale' not in built[0].optim_wrapper


@pytest.mark.parametrize(
    ('wrapper', 'expected'), [(OptimWrapper, 'AmpOptimWrapper'), (AmpOptimWrapper, AmpOptimWrapper)]
)
def test_amp_knows_wrappers_given_as_classes(built, config, wrapper, expected):
    api.train(config(wrapper=wrapper.__name__, text=NEW_STYLE), amp=True)
    assert built[0].optim_wrapper.type == expected


def test_resuming_from_a_file(built, config, weights):
    api.train(config(), resume=weights)
    assert (built[0].resume, built[0].load_from) == (True, weights)


def test_resuming_from_the_latest_checkpoint(built, config, weights):
    os.mkdir('run')
    state = {'state_dict': {'a': torch.ones(1)}, 'message_hub': {}, 'optimizer': {}}
    torch.save(state, weights)
    with open('run/last_checkpoint', 'w') as file:
        file.write(weights)
    api.train(config(more="load_from = 'coco.pth'"), work_dir='run', resume='auto')
    assert (built[0].resume, built[0].load_from) == (True, weights)


def test_first_start_with_resume_takes_the_weights_of_the_config(built, config):
    """A job that is restarted by the same command has no checkpoint the first time."""
    api.train(config(more="load_from = 'coco.pth'"), resume='auto')
    assert (built[0].resume, built[0].load_from) == (False, 'coco.pth')


def test_shipped_config_is_found_by_name(built):
    name = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco'
    api.train(name)
    assert built[0].default_scope == 'mmdet'
    assert built[0].work_dir == os.path.join('work_dirs', name)


def test_new_style_config_is_evaluated_by_the_framework_of_its_model(built, config, weights):
    api.evaluate(config(text=NEW_STYLE), weights)
    assert built[0].load_from == weights


@pytest.mark.parametrize('wrapped', [False, True])
def test_augmentation_wraps_the_model(built, config, weights, wrapped):
    more = "tta_model = dict(type='TTA')\ntta_pipeline = [dict(type='Flip')]"
    if wrapped:
        more += '\ntest_dataloader = dict(dataset=dict(dataset=test_dataloader["dataset"]))'
    api.evaluate(config(more=more), weights, tta=True)
    model, dataset = built[0].model, built[0].test_dataloader.dataset
    assert (model.type, model.module.type) == ('TTA', 'Model')
    assert (dataset.dataset if wrapped else dataset).pipeline == [dict(type='Flip')]


def test_missing_config_names_its_relatives(built):
    with pytest.raises(UserError, match=r'-tiny_fpn: no such file.*mask-rcnn_uniformer-nano_fpn'):
        api.train('mask-rcnn_uniformer-tiny_fpn')
    assert built == []


def test_weights_by_address_are_left_to_mmengine(built, config):
    api.evaluate(config(), 'https://example.org/a.pth')
    assert built[0].load_from == 'https://example.org/a.pth'


def test_config_without_a_framework_is_refused(built, config):
    with pytest.raises(UserError, match='set default_scope to one of mmdet, mmseg'):
        api.train(config(None))
    assert built == []


REFUSED = {
    'auto_scale_lr': ({'auto_scale_lr': True}, 'auto_scale_lr = None', 'base_batch_size'),
    'amp': ({'amp': True}, "optim_wrapper = dict(type='ZeroWrapper')", 'ZeroWrapper'),
    'tta': ({'tta': True}, 'tta_model = dict()', 'tta_pipeline'),
}


@pytest.mark.parametrize('argument', REFUSED)
def test_arguments_that_do_not_fit_are_refused(built, config, weights, argument):
    options, more, named = REFUSED[argument]
    positional = [config(more=more)]
    function = api.train
    if argument not in ('auto_scale_lr', 'amp'):
        positional.append(weights)
        function = api.evaluate
    with pytest.raises(UserError, match=named):
        function(*positional, **options)
    assert built == []


def test_errors_of_a_run_keep_their_traceback(built, config, monkeypatch):
    def fail(cfg):
        raise FileNotFoundError('a file of a hook')

    monkeypatch.setattr(api.RUNNERS, 'build', fail)
    path = config()
    with pytest.raises(FileNotFoundError, match='a file of a hook'):
        api.train(path)


def test_runner_that_the_config_names_is_built(config, monkeypatch, tmp_path):
    monkeypatch.setattr(api, 'scope_of', contextlib.nullcontext)
    monkeypatch.chdir(tmp_path)
    made = []

    @api.RUNNERS.register_module(name='TrainedByName', force=True)
    class Named:
        @classmethod
        def from_cfg(cls, cfg):
            made.append(cfg.work_dir)
            return cls()

        def train(self):
            return 'a model of the named runner'

    path = config(more="runner_type = 'TrainedByName'")
    assert api.train(path, work_dir='here') == 'a model of the named runner'
    assert made == ['here']
