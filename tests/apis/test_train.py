"""Training and testing scripts: what their options change in the config, and their refusals."""

import os
from pathlib import Path

import pytest
from mmengine.config import Config

from mmuniformer.apis import train as runner

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


@pytest.fixture
def built(monkeypatch, tmp_path):
    """Configs that runners were built from, and which of train and test was called."""
    configs = []

    class Runner:
        def __init__(self, cfg):
            configs.append(cfg)

        from_cfg = classmethod(lambda cls, cfg: cls(cfg))

        def train(self):
            configs.append('train')

        def test(self):
            configs.append('test')

    monkeypatch.setattr(runner, 'Runner', Runner)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.chdir(tmp_path)
    return configs


@pytest.fixture
def config(tmp_path):
    """Write a config; its name is 'some.py'."""

    def write(scope='mmdet', wrapper='OptimWrapper', more=''):
        path = tmp_path / 'some.py'
        path.write_text(CONFIG.format(scope=scope, wrapper=wrapper) + more)
        return str(path)

    return write


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'some.pth'
    path.touch()
    return str(path)


def refused(capsys, function, *arguments):
    """Return the message of a call that has to fail."""
    assert function(arguments) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith('Error: ')
    return captured.err


def test_train_takes_what_mim_passes(built, config):
    assert runner.run_training([config(), '--launcher', 'none', '--work-dir', 'here']) == 0
    cfg, call = built
    assert call == 'train'
    assert (cfg.launcher, cfg.work_dir) == ('none', 'here')
    assert os.path.isdir('here')
    assert cfg.get('resume') is None
    assert cfg.optim_wrapper.type == 'OptimWrapper'


def test_test_takes_what_mim_passes(built, config, weights):
    assert runner.run_evaluation([config(), weights, '--launcher', 'none']) == 0
    cfg, call = built
    assert call == 'test'
    assert cfg.load_from == weights
    assert cfg.work_dir == os.path.join('work_dirs', 'some')
    assert 'draw' not in cfg.default_hooks.visualization


def test_work_dir_of_the_config_is_kept(built, config, tmp_path):
    runner.run_training([config(more=f'work_dir = {str(tmp_path / "mine")!r}')])
    assert built[0].work_dir == str(tmp_path / 'mine')


def test_options_reach_the_config(built, config):
    options = ['model.backbone.depth=3', 'optim_wrapper.optimizer.lr=0.5']
    runner.run_training([config(), '--amp', '--auto-scale-lr', '--cfg-options', *options])
    cfg = built[0]
    assert cfg.model.backbone.depth == 3
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.optim_wrapper.optimizer.lr == 0.5
    assert cfg.auto_scale_lr.enable is True


def test_amp_keeps_the_loss_scale_of_the_config(built, config):
    runner.run_training([config(), '--amp', '--cfg-options', 'optim_wrapper.loss_scale=512.0'])
    assert built[0].optim_wrapper.loss_scale == 512.0


def test_amp_changes_nothing_where_it_is_on(built, config):
    runner.run_training([config(wrapper='AmpOptimWrapper'), '--amp'])
    assert built[0].optim_wrapper.type == 'AmpOptimWrapper'
    assert 'loss_scale' not in built[0].optim_wrapper


def test_resume_from_the_latest_or_from_a_file(built, config, weights):
    runner.run_training([config(), '--resume'])
    assert (built[0].resume, built[0].load_from) == (True, None)
    runner.run_training([config(), '--resume', weights])
    assert (built[2].resume, built[2].load_from) == (True, weights)


@pytest.mark.parametrize(
    ('spelling', 'given', 'rank'),
    [('--local_rank', None, '3'), ('--local-rank', None, '3'), ('--local-rank', '1', '1')],
)
def test_local_rank_of_the_launcher_wins(built, config, monkeypatch, spelling, given, rank):
    if given:
        monkeypatch.setenv('LOCAL_RANK', given)
    runner.run_training([config(), spelling, '3', '--launcher', 'pytorch'])
    assert os.environ['LOCAL_RANK'] == rank
    assert built[0].launcher == 'pytorch'


def test_shipped_config_is_found_by_name(built):
    name = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco'
    runner.run_training([name])
    assert built[0].default_scope == 'mmdet'
    assert built[0].work_dir == os.path.join('work_dirs', name)


@pytest.mark.parametrize(
    ('scope', 'changed'),
    [
        ('mmdet', dict(draw=True, test_out_dir='{}/seen')),
        ('mmseg', dict(draw=True, interval=1)),
        ('mmpose', dict(enable=True, interval=1, out_dir='{}/seen')),
    ],
)
def test_pictures_are_switched_on_as_each_framework_calls_it(
    built, config, weights, tmp_path, scope, changed
):
    runner.run_evaluation([config(scope), weights, '--show-dir', 'seen'])
    expected = {k: v.format(tmp_path) if isinstance(v, str) else v for k, v in changed.items()}
    assert built[0].default_hooks.visualization.to_dict() == dict(type='Hook', **expected)
    place = f'{tmp_path}/seen' if scope == 'mmseg' else None
    assert built[0].visualizer.get('save_dir') == place


@pytest.mark.parametrize(('scope', 'dump'), [('mmdet', 'DumpDetResults'), ('mmseg', 'DumpResults')])
def test_predictions_are_dumped_beside_the_metric(built, config, weights, scope, dump):
    runner.run_evaluation([config(scope), weights, '--out', 'found.pkl'])
    assert [dict(metric) for metric in built[0].test_evaluator] == [
        dict(type='Metric'),
        dict(type=dump, out_file_path='found.pkl'),
    ]


def test_augmentation_wraps_the_model(built, config, weights):
    more = "tta_model = dict(type='TTA')\ntta_pipeline = [dict(type='Flip')]"
    runner.run_evaluation([config(more=more), weights, '--tta'])
    model = built[0].model
    assert (model.type, model.module.type) == ('TTA', 'Model')
    assert built[0].test_dataloader.dataset.pipeline == [dict(type='Flip')]


def test_missing_config_names_its_relatives(built, capsys):
    message = refused(capsys, runner.run_training, 'mask-rcnn_uniformer-tiny_fpn')
    assert 'mask-rcnn_uniformer-tiny_fpn: no such file' in message
    assert 'mask-rcnn_uniformer-nano_fpn_toy' in message
    assert built == []


def test_deploy_adds_its_hook(built, config, weights):
    runner.run_evaluation([config(more="custom_hooks = [dict(type='Mine')]"), weights, '--deploy'])
    assert [hook.type for hook in built[0].custom_hooks] == ['Mine', 'mmuniformer.DeployHook']


def test_missing_checkpoint_is_named(built, config, capsys):
    assert 'gone.pth does not exist' in refused(capsys, runner.run_evaluation, config(), 'gone.pth')
    assert 'gone.pth' in refused(capsys, runner.run_training, config(), '--resume', 'gone.pth')


def test_weights_by_address_are_left_to_mmengine(built, config):
    runner.run_evaluation([config(), 'https://example.org/a.pth'])
    assert built[0].load_from == 'https://example.org/a.pth'


def test_unwritable_work_dir_is_named(built, config, capsys, tmp_path):
    (tmp_path / 'file').touch()
    message = refused(capsys, runner.run_training, config(), '--work-dir', 'file/below')
    assert 'file/below' in message
    assert '--work-dir' in message
    assert built == []


@pytest.mark.parametrize('scope', ['mmpretrain', None])
def test_other_frameworks_are_refused(built, config, capsys, scope):
    assert f'default_scope is {scope!r}' in refused(capsys, runner.run_training, config(scope))


def test_broken_framework_points_to_doctor(built, config, capsys, monkeypatch):
    def fail(name):
        raise AssertionError('MMCV==2.2.0 is used but incompatible')

    monkeypatch.setattr(runner.importlib, 'import_module', fail)
    message = refused(capsys, runner.run_training, config())
    assert 'MMCV==2.2.0' in message
    assert '`mmuniformer doctor`' in message


@pytest.mark.parametrize(
    ('options', 'more', 'named'),
    [
        (['--auto-scale-lr'], 'auto_scale_lr = dict()', 'base_batch_size'),
        (['--amp'], "optim_wrapper = dict(type='ZeroWrapper')", 'ZeroWrapper'),
    ],
)
def test_options_that_do_not_fit_are_refused_in_training(
    built, config, capsys, options, more, named
):
    assert named in refused(capsys, runner.run_training, config(more=more), *options)
    assert built == []


@pytest.mark.parametrize(
    ('options', 'more', 'named'),
    [
        (['--show-dir', 'x'], 'default_hooks = dict()', 'default_hooks.visualization'),
        (['--tta'], 'tta_model = dict()', 'tta_pipeline'),
        (['--out', 'x.json'], '', '--out x.json'),
    ],
)
def test_options_that_do_not_fit_are_refused_in_testing(
    built, config, weights, capsys, options, more, named
):
    assert named in refused(capsys, runner.run_evaluation, config(more=more), weights, *options)
    assert built == []


def test_missing_data_is_named_with_the_way_out(built, config, capsys, monkeypatch):
    def fail(cfg):
        Path('data/annotations.json').read_text()

    monkeypatch.setattr(runner.Runner, 'from_cfg', fail)
    message = refused(capsys, runner.run_training, config())
    assert 'data/annotations.json' in message
    assert 'train_dataloader.dataset.data_root' in message


def test_other_errors_are_not_hidden(built, config, monkeypatch):
    def fail(cfg):
        raise KeyError('a bug')

    monkeypatch.setattr(runner.Runner, 'from_cfg', fail)
    with pytest.raises(KeyError):
        runner.run_training([config()])


def test_config_is_not_changed_on_disk(built, config):
    path = config()
    runner.run_training([path, '--amp'])
    assert Config.fromfile(path).optim_wrapper.type == 'OptimWrapper'
