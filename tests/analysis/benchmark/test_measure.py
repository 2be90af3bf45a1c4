"""Times, memory and the machine."""

from __future__ import annotations

import functools
import json
import operator
from types import SimpleNamespace

import pytest
import torch

from mmuniformer.analysis.benchmark import measure

CPU = torch.device('cpu')


def test_calls_are_timed_in_turn_after_one_untimed_round():
    order = []
    calls = {name: functools.partial(order.append, name) for name in 'abc'}
    timings = measure.interleaved(calls, 2, CPU)
    assert order == ['a', 'b', 'c'] * 3
    assert list(timings) == ['a', 'b', 'c']


def test_the_untimed_round_does_not_count(monkeypatch):
    now = iter([0, 10, 11, 20, 24, 30, 32])
    monkeypatch.setattr(measure, 'time', SimpleNamespace(perf_counter=lambda: next(now)))
    assert measure.interleaved({'a': int}, 3, CPU) == {'a': [1, 4, 2]}


@pytest.mark.slow
def test_peak_memory_is_that_of_the_call():
    megabytes = 300
    growth, whole = measure.peak_memory_on_cpu(
        functools.partial, operator.mul, b'x', megabytes << 20
    )
    assert growth / (1 << 20) == pytest.approx(megabytes, abs=20)
    assert whole > growth


def test_the_floor_is_that_of_large_products():
    found = measure.products(CPU, torch.float64, [(3, 5, 8, 16)])
    (square, cube), (convolution, count) = found.values()
    assert list(found) == ['128 x 128 matrices', '1x1 convolution, 8 to 16 channels']
    assert cube == len(square()) ** 3
    assert count == 3 * 5 * 8 * 16
    assert convolution().shape == (1, 16, 3, 5)
    assert {square().dtype, convolution().dtype} == {torch.float64}


def test_machine_can_be_written_as_json():
    machine = json.loads(json.dumps(measure.machine(CPU)))
    assert machine['versions']['torch'].split('+')[0] == torch.__version__.split('+')[0]
    assert machine['device'].endswith(f', {torch.backends.cpu.get_cpu_capability()}')
    assert machine['threads'] >= 1
