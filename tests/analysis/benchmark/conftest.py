"""Benchmarks that do not wait for the pace of the machine."""

import pytest

from mmuniformer.analysis.benchmark import measure


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    """Without instructions for bfloat16 the product takes half a minute."""
    monkeypatch.setitem(measure.SIDES, 'cpu', 128)
