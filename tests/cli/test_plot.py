"""Curves from the scalars that mmengine writes."""

import json
import math

import cv2
import pytest
from click.testing import CliRunner
from mmengine.visualization import LocalVisBackend

from mmuniformer.cli.plot import command, draw_runs, find_runs, read_run
from mmuniformer.errors import UserError

pytestmark = pytest.mark.frameworks


def train_line(step, **scalars):
    return {'lr': 1e-3, 'time': 0.1, 'data_time': 0.1, 'memory': 1, 'iter': step, **scalars}


def write_run(folder, name, records):
    """Write a run through mmengine's own backend."""
    backend = LocalVisBackend(str(folder / name / 'vis_data'))
    for step, scalars in records:
        backend.add_scalars(scalars, step=step)


DET = [
    (20, train_line(20, epoch=1, loss=3.0, loss_mask=1.0, acc=90.0, grad_norm=4.0)),
    (40, train_line(40, epoch=2, loss=2.0, loss_mask=0.5, acc=95.0, grad_norm=3.0)),
    (1, {'coco/bbox_mAP': 0.1, 'coco/bbox_mAP_s': -1.0, 'coco/segm_mAP': math.nan, 'time': 1.0}),
    (2, {'coco/bbox_mAP': 0.2, 'coco/bbox_mAP_copypaste': '0.2 0.3', 'coco/segm_mAP': 0.1}),
]
SEG = [
    (50, train_line(50, loss=1.5, **{'decode.loss_ce': 1.5, 'decode.acc_seg': 40.0})),
    (100, {'aAcc': 80.0, 'mIoU': 50.0, 'data_time': 0.1}),
]


def test_scalars_are_sorted_into_panels(tmp_path):
    write_run(tmp_path, '20260101_000000', DET)
    run = read_run(*find_runs(tmp_path))
    assert run.name == '20260101_000000'
    assert {title: dict(curves) for title, curves in run.panels.items()} == {
        'learning rate, by iteration': {'lr': ([20, 40], [1e-3, 1e-3])},
        'losses, by iteration': {'loss': ([20, 40], [3, 2]), 'loss_mask': ([20, 40], [1, 0.5])},
        'accuracy, by iteration': {'acc': ([20, 40], [90, 95])},
        'grad_norm, by iteration': {'grad_norm': ([20, 40], [4, 3])},
        'coco/bbox, by epoch': {'coco/bbox_mAP': ([1, 2], [0.1, 0.2])},
        'coco/segm, by epoch': {'coco/segm_mAP': ([2], [0.1])},
    }


def test_metrics_of_a_run_by_iterations(tmp_path):
    write_run(tmp_path, 'a', SEG)
    panels = read_run(*find_runs(tmp_path)).panels
    assert panels['evaluation, by iteration'] == {'aAcc': ([100], [80]), 'mIoU': ([100], [50])}
    assert panels['losses, by iteration']['decode.loss_ce'] == ([50], [1.5])
    assert panels['accuracy, by iteration']['decode.acc_seg'] == ([50], [40])


def test_figure_has_the_curves_and_pales_older_runs(tmp_path):
    write_run(tmp_path, 'a', DET[:2])
    write_run(tmp_path, 'b', DET)
    figure = draw_runs([read_run(file) for file in find_runs(tmp_path)], 'title')
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ['losses', 'learning rate', 'accuracy', 'grad_norm', 'coco/bbox', 'coco/segm']
    losses = figure.axes[0]
    assert losses.get_yscale() == 'log'
    lines = [(list(line.get_ydata()), line.get_alpha()) for line in losses.get_lines()]
    older, latest = lines[:2], lines[2:]
    assert [values for values, _ in latest] == [[3, 2], [1, 0.5]]
    assert {alpha for _, alpha in older} == {0.35}
    assert {alpha for _, alpha in latest} == {1}
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ['loss', 'loss_mask']
    assert figure.axes[4].get_xlabel() == 'epoch'


def test_losses_at_zero_are_not_drawn_on_a_log_scale(tmp_path):
    write_run(tmp_path, 'a', [(1, train_line(1, loss=0.0)), (2, train_line(2, loss=1.0))])
    figure = draw_runs([read_run(*find_runs(tmp_path))], '')
    assert figure.axes[0].get_yscale() == 'linear'


def run(*args):
    arguments = [str(arg) for arg in args]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_command_takes_the_latest_run(tmp_path):
    write_run(tmp_path, '20260102_000000', DET)
    write_run(tmp_path, '20260101_000000', SEG)
    result = run(tmp_path)
    assert result.output == f'{tmp_path / "curves.png"}: 1 of 2 runs, the latest 20260102_000000\n'
    assert cv2.imread(str(tmp_path / 'curves.png')).std() > 20
    result = run(tmp_path, '--all-runs', '--out', tmp_path / 'new' / 'all.svg')
    assert result.output.endswith('2 of 2 runs, the latest 20260102_000000\n')
    text = (tmp_path / 'new' / 'all.svg').read_text()
    assert text.startswith('<?xml')


@pytest.mark.parametrize('inner', ['', '20260101_000000', '20260101_000000/vis_data'])
def test_a_runs_own_folders_do_too(tmp_path, inner):
    write_run(tmp_path, '20260101_000000', DET)
    assert run(tmp_path / inner, '--out', tmp_path / 'x.png').output.endswith('20260101_000000\n')


def test_nothing_is_replaced_without_force(tmp_path):
    write_run(tmp_path, 'a', DET)
    (tmp_path / 'curves.png').write_text('mine')
    with pytest.raises(UserError, match=r'curves.png exists.*--force'):
        run(tmp_path)
    assert (tmp_path / 'curves.png').read_text() == 'mine'
    run(tmp_path, '--force')
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG'


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match='no folder'):
        run(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'has no \*/vis_data/scalars.json'):
        run(tmp_path)
    with pytest.raises(UserError, match='should end in'):
        run(tmp_path, '--out', tmp_path / 'curves')
    file = tmp_path / 'a' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('')
    with pytest.raises(UserError, match='no numbers yet'):
        run(tmp_path)
    for broken in ('{"loss": 1, "step"', '[1, 2]', '{"loss": 1}'):
        file.write_text(json.dumps({'loss': 1, 'step': 1, 'iter': 1}) + '\n' + broken)
        with pytest.raises(UserError, match='line 2'):
            run(tmp_path)
    assert not (tmp_path / 'curves.png').exists()
