"""`mmuniformer benchmark seg` from start to end."""

from __future__ import annotations

import json
from unittest.mock import MagicMock

import pytest
import torch
from click.testing import CliRunner
from mmengine import Config
from rich.console import Console

from mmuniformer.analysis.benchmark import measure, run
from mmuniformer.analysis.benchmark.cases import Case, Settings
from mmuniformer.analysis.benchmark.profiles import PROFILES
from mmuniformer.analysis.layouts import Layout
from mmuniformer.cli.benchmark import command
from mmuniformer.errors import UserError

pytestmark = pytest.mark.frameworks

TOY = 'fpn_uniformer-nano_toy-128x128'


def benchmark(*arguments):
    return CliRunner().invoke(command, ['seg', *map(str, arguments)])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--layouts', 'w4,nonsense'], "layout 'nonsense'"),
    ],
)
def test_options_that_do_not_go_together(arguments, message, tmp_path):
    result = benchmark(TOY, '--out', tmp_path, *arguments)
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not any(tmp_path.iterdir())


def test_configs_of_other_tasks_are_refused(tmp_path):
    result = benchmark('mask-rcnn_uniformer-nano_fpn_toy', '--out', tmp_path)
    assert 'is not a config of a segmentor' in str(result.exception)


def test_figures_of_an_earlier_run_stay(tmp_path):
    (tmp_path / 'benchmark.json').write_text('precious')
    result = benchmark(TOY, '--out', tmp_path)
    assert 'benchmark.json exists' in str(result.exception)
    assert (tmp_path / 'benchmark.json').read_text() == 'precious'


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights of the toy model, in a file like those of a training."""
    pytest.importorskip('mmseg')
    from mmuniformer.apis.config import load_config
    from mmuniformer.apis.models import build_model

    torch.manual_seed(0)
    path = tmp_path / 'random.pth'
    torch.save({'state_dict': build_model(load_config(TOY)).state_dict(), 'meta': {}}, path)
    return path


def data_at(root):
    return ['--cfg-options', f'test_dataloader.dataset.data_root={root}/']


@pytest.mark.parametrize('empty', [False, True])
def test_missing_and_empty_data_are_named(empty, tmp_path, checkpoint):
    folder = tmp_path / 'no' / 'images' / 'validation'
    if empty:
        folder.mkdir(parents=True)
    result = benchmark(TOY, checkpoint, '--out', tmp_path / 'out', *data_at(tmp_path / 'no'))
    assert isinstance(result.exception, UserError)
    assert str(folder) in str(result.exception)


def test_data_in_wrappers_are_checked_unless_the_config_says_otherwise(tmp_path, checkpoint):
    from mmuniformer.apis.config import load_config

    cfg = load_config(TOY, {'test_dataloader.dataset.data_root': str(tmp_path / 'no')})
    cfg.test_dataloader.dataset = {
        'type': 'ConcatDataset',
        'datasets': [cfg.test_dataloader.dataset],
    }
    cfg.dump(tmp_path / 'own.py')
    arguments = tmp_path / 'own.py', checkpoint, '--shape', 64, 64, '--out', tmp_path / 'out'
    result = benchmark(*arguments)
    assert isinstance(result.exception, UserError)
    assert f'{tmp_path}/no' in str(result.exception)
    unchecked = benchmark(*arguments, '--cfg-options', 'check_data=False')
    assert isinstance(unchecked.exception, FileNotFoundError)


@pytest.mark.slow
def test_layouts_side_by_side(tmp_path, checkpoint, toy_root):
    from mmuniformer.analysis.complexity import complexity
    from mmuniformer.apis.config import load_config

    out = tmp_path / 'out'
    result = benchmark(
        TOY, checkpoint, '--layouts', 'global,w4', '--profiles', 'fused,bf16', '--shape', 128, 160,
        '--repeats', 2, '--device', 'cpu', '--out', out, *data_at(toy_root / 'ade'),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert 'global' in result.output
    assert 'benchmark.json' in result.output.replace('\n', '')

    record = json.loads((out / 'benchmark.json').read_text())
    assert record['settings']['shapes'] == [[128, 160]]
    assert record['settings']['checkpoint'] == str(checkpoint)
    assert record['machine']['versions']['torch']
    rows = record['rows']
    assert [row['layout'] for row in rows] == ['global', 'global', 'w4', 'w4']
    assert [row['profile'] for row in rows] == ['fused', 'bf16'] * 2
    for row in rows:
        cfg = Layout.parse(row['layout']).in_config(load_config(TOY))
        counted = complexity(cfg, (128, 160))
        assert row['gflops'] == pytest.approx(counted.flops / 1e9, rel=1e-4)
        assert row['params_m'] == pytest.approx(counted.params / 1e6, rel=1e-4)
        assert 0 <= row['mIoU'] <= row['aAcc'] <= 100
        assert row['ms'] > 0
        assert row['whole_mb'] > row['peak_mb'] + 100
    assert rows[0]['gflops'] != rows[2]['gflops']
    assert any(rows[0][name] != rows[2][name] for name in ('mIoU', 'mAcc', 'aAcc'))


@pytest.mark.slow
def test_scores_are_those_of_the_frameworks_own_test(tmp_path, checkpoint, toy_root):
    from mmengine.runner import Runner

    from mmuniformer.analysis.benchmark.run import evaluate
    from mmuniformer.apis.config import load_config, scope_of
    from mmuniformer.apis.models import build_model

    cfg = load_config(TOY, {'test_dataloader.dataset.data_root': f'{toy_root}/ade/'})
    cfg.merge_from_dict({'model.backbone.stage3_attn': 'window', 'model.backbone.window_size': 4})
    cfg.work_dir, cfg.load_from = str(tmp_path / 'work'), str(checkpoint)
    cfg.launcher, cfg.log_level, cfg.experiment_name = 'none', 'ERROR', tmp_path.name
    wanted = Runner.from_cfg(cfg).test()
    with scope_of(cfg):
        found = evaluate(build_model(cfg, checkpoint), cfg)
    assert found == {name: pytest.approx(wanted[name]) for name in ('mIoU', 'mAcc', 'aAcc')}


@pytest.mark.parametrize(('profile', 'dtype'), [('fused', torch.float32), ('bf16', torch.bfloat16)])
def test_scores_are_taken_in_the_type_of_the_profile(profile, dtype, monkeypatch):
    seen = []

    def evaluate(model, *_):
        seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return {'mIoU': 40.0, 'mDice': 50.0}

    monkeypatch.setattr(run, 'evaluate', evaluate)
    monkeypatch.setattr(measure, 'peak_memory_on_cpu', lambda *_: (1, 2))
    settings = Settings('backbone', 'nano', None, ((64, 64),), 1, 0, 'inference', 'cpu')
    cfg = Config({'model': {'type': 'mmuniformer.UniFormer', 'arch': 'nano'}})
    case = Case(profile, cfg, settings, 'global', PROFILES[profile])
    rows, _ = run.measure_cases([case], settings, Console(), scored=True)
    assert seen == [dtype]
    assert (rows[0].mIoU, rows[0].mAcc) == (40, None)


@pytest.mark.parametrize('checked', [True, False])
def test_labels_are_checked_unless_the_config_says_not_to(monkeypatch, checked):
    loader, evaluator, seen = MagicMock(), MagicMock(), []
    loader.__iter__.return_value = iter(['batch'])
    evaluator.evaluate.return_value = {'mIoU': 50}
    monkeypatch.setattr(run.Runner, 'build_dataloader', lambda cfg: loader)
    monkeypatch.setattr(run, 'Evaluator', lambda cfg: evaluator)
    monkeypatch.setattr(run, 'check_batch', lambda head, batch: seen.append(batch))
    cfg = Config({'check_data': checked, 'test_dataloader': {}, 'test_evaluator': {}})
    assert run.evaluate(MagicMock(), cfg) == {'mIoU': 50.0}
    assert seen == ['batch'] * checked
