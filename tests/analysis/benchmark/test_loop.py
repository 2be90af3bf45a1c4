"""The training loop of a config, measured against its network."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mmuniformer.analysis.benchmark import loop
from mmuniformer.cli.benchmark import command
from mmuniformer.errors import UserError

CLASSIFIER = 'uniformer-nano_toy-64x64'


def benchmark(*arguments):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(loop, 'WARM_UP', 2)
    monkeypatch.setattr(loop, 'KEPT', 2)


@pytest.fixture
def crops(toy_root):
    """Folder of a classifier's data."""
    from mmuniformer.datasets.toy.labeled import write_toy_crops
    from mmuniformer.datasets.toy.write import write_toy_data

    return write_toy_crops(write_toy_data(toy_root, train_images=8, val_images=4, size=128))


@pytest.mark.frameworks
@pytest.mark.integration
@pytest.mark.parametrize('workers', [0, 1])
def test_the_loop_is_measured_beside_its_network(workers, tmp_path, crops, few_steps):
    pytest.importorskip('mmpretrain')
    out = tmp_path / 'out'
    result = benchmark(
        'cls', CLASSIFIER, '--train', '--loop', '--repeats', 3, '--out', out, '--cfg-options',
        f'train_dataloader.dataset.data_root={crops}', 'train_dataloader.batch_size=4',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
        'default_hooks.logger.interval=1',
    )  # fmt: skip
    assert result.exit_code == 0, result.exception or result.output
    record = json.loads((out / 'benchmark.json').read_text())
    assert record['settings']['loop']
    assert record['settings']['batch_size'] == 4
    whole, step, backward = record['rows']
    assert [row['profile'] for row in record['rows']] == [
        'training loop', 'forward, backward, optimizer', 'forward, backward',
    ]  # fmt: skip
    assert {row['size'] for row in record['rows']} == {'4 x 64 x 64'}
    assert {row['layout'] for row in record['rows']} == {'global'}
    assert backward['times_backward'] == 1
    assert whole['times_backward'] == pytest.approx(whole['ms'] / backward['ms'])
    assert whole['images_per_second'] == pytest.approx(4e3 / whole['ms'])
    assert step['data_share'] is backward['data_ms'] is None

    # What the loop itself wrote; its log averages over the steps so far.
    (log,) = out.glob('*/vis_data/scalars.json')
    logged = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(logged) == 5
    last, before = ([line[key] * count for key in ('data_time', 'time')]
                    for line, count in ((logged[4], 5), (logged[1], 2)))  # fmt: skip
    data, seconds = last[0] - before[0], last[1] - before[1]
    assert whole['data_ms'] == pytest.approx(data / 3 * 1e3, rel=1e-3, abs=1e-3)
    assert whole['data_share'] == pytest.approx(data / seconds, rel=1e-3)
    assert not list(out.rglob('*.pth'))
    assert 'x backward' in result.stdout


@pytest.mark.frameworks
@pytest.mark.integration
def test_a_training_that_is_too_short_is_named(tmp_path, crops, few_steps):
    pytest.importorskip('mmpretrain')
    result = benchmark(
        'cls', CLASSIFIER, '--train', '--loop', '--out', tmp_path, '--cfg-options',
        f'train_dataloader.dataset.data_root={crops}', 'train_dataloader.batch_size=4',
        'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=20',
    )  # fmt: skip
    assert isinstance(result.exception, UserError)
    assert 'has 5 steps: give --repeats at most 3' in str(result.exception)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['backbone', 'nano', '--train'], 'benchmark det|seg|pose|cls|video CONFIG --train --loop'),
        (['cls', CLASSIFIER], 'CONFIG --train --loop'),
        (['cls', CLASSIFIER, '--train', '--step'], 'without --step: leave it out'),
        (['cls', CLASSIFIER, 'a.pth', '--train', '--shape', 64, 64], 'CHECKPOINT, --shape'),
        (['cls', CLASSIFIER, '--train', '--repeats', 0], '--repeats is its number of steps'),
    ],
)
def test_what_the_loop_does_not_take_is_refused(arguments, message, tmp_path):
    result = benchmark(*arguments, '--loop', '--out', tmp_path / 'out')
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert not (tmp_path / 'out').exists()
