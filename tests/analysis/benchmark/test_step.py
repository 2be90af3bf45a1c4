"""What a training step has to multiply, and its optimizer."""

import json

import pytest
import torch
from click.testing import CliRunner
from mmengine import Config
from mmengine.optim import OptimWrapper
from torch import nn

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.step import build_optimizer, multiply_adds
from mmuniformer.cli.benchmark import command


@pytest.mark.parametrize(
    ('layer', 'forward'),
    [
        (nn.Conv2d(4, 8, 3, padding=1), 64 * 8 * 4 * 9),
        (nn.Conv2d(4, 4, 5, padding=2, groups=4), 64 * 4 * 25),
        (nn.ConvTranspose2d(4, 8, 2, stride=2), 64 * 4 * 8 * 4),
        (nn.Linear(8, 3), 4 * 8 * 8 * 3),
    ],
    ids=['dense', 'depthwise', 'transposed', 'linear'],
)
def test_backward_multiplies_twice_what_forward_does(layer, forward):
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    assert multiply_adds(lambda: layer(x.detach().requires_grad_(False)).sum()) == forward
    assert multiply_adds(lambda: layer(x).sum().backward()) == 3 * forward
    # Images need no gradient.
    assert multiply_adds(lambda: layer(x.detach()).sum().backward()) == 2 * forward


def test_the_optimizer_is_the_configs_without_its_precision():
    cfg = Config({'optim_wrapper': {
        'type': 'AmpOptimWrapper', 'dtype': 'float16', 'accumulative_counts': 4,
        'optimizer': {'type': 'AdamW', 'lr': 0.25}, 'clip_grad': {'max_norm': 1.0},
    }})  # fmt: skip
    found = build_optimizer(cfg, nn.Linear(2, 2), torch.device('cpu'), 'bfloat16')
    assert type(found) is OptimWrapper
    assert found.optimizer.param_groups[0]['lr'] == 0.25
    assert found.clip_grad_kwargs == {'max_norm': 1.0}
    assert found._accumulative_counts == 1
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.frameworks
@pytest.mark.integration
def test_whole_steps_are_measured(tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setattr(measure, 'peak_memory_on_cpu', lambda prepare, *args: (1 << 20, 2 << 20))
    options = [
        '--train', '--step', '--amp', 'bfloat16', '--profiles', 'plain,nhwc', '--device', 'cpu',
        '--shape', '64', '64', '--batch-size', '2', '--repeats', '1',
    ]  # fmt: skip
    result = CliRunner().invoke(
        command, ['seg', 'fpn_uniformer-nano_toy-128x128', *options, '--out', str(tmp_path)]
    )
    assert result.exit_code == 0, result.exception or result.output
    record = json.loads((tmp_path / 'benchmark.json').read_text())
    assert (record['settings']['amp'], record['settings']['step']) == ('bfloat16', True)
    assert list(record['rates']) == ['bfloat16']
    assert len(record['rates']['bfloat16']) == 5  # of matrices, and of each stage
    for row in record['rows']:
        assert 0 < row['of_rate'] < 5  # of a pace of small products
        assert row['difference'] is None


@pytest.mark.parametrize('arguments', [('backbone', 'nano', '--train'), ('seg', 'any')])
def test_the_optimizer_needs_the_training_of_a_whole_model(arguments):
    result = CliRunner().invoke(command, [*arguments, '--step'])
    assert '--step' in str(result.exception)
    assert '--train' in str(result.exception)
