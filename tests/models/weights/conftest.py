"""What the tests of weight files share."""

import pytest
import torch


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache of torch, and no proxy between a test and localhost."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
