"""No form of a malicious checkpoint runs; each would, if it were read freely."""

import contextlib
import sys

import malicious
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from mmuniformer import compat
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.files import load_state_dict_file


@pytest.fixture(params=malicious.WRITERS)
def evil(request, tmp_path):
    """The file, and a path that exists once anything in the file has run."""
    mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    malicious.WRITERS[request.param](mark, path)
    return path, mark


def test_form_works_where_it_is_read_freely(evil, monkeypatch):
    """Otherwise the other tests would prove nothing."""
    path, mark = evil
    monkeypatch.syspath_prepend(path.parent)
    with contextlib.suppress(Exception):  # some are no sound checkpoints
        torch.load(path, **{'weights_only': False})
    sys.modules.pop('imported', None)
    assert mark.exists()


@pytest.mark.parametrize('way', ['allow-list', 'unpickler'])
def test_form_is_refused_by_name(evil, way, monkeypatch):
    """torch's own check from 2.6 on, and the restricted unpickler for older ones."""
    path, mark = evil
    if way == 'allow-list' and not compat.TORCH_HAS_ALLOW_LIST:
        pytest.skip('this torch has no allow-list')
    monkeypatch.setattr(compat, 'TORCH_HAS_ALLOW_LIST', way == 'allow-list')
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(CheckpointError) as caught:
        load_state_dict_file(path)
    assert not mark.exists()
    said = str(caught.value)
    assert said.startswith(f'{path} ')
    assert 'would have to be run' in said or 'no PyTorch checkpoint (Unsupported operand' in said
    assert 'weights_only' not in said


def test_form_is_refused_by_the_loader_of_the_frameworks(evil, monkeypatch):
    path, mark = evil
    monkeypatch.syspath_prepend(path.parent)
    reason = '(?i)weights.?only|WeightsUnpickler|tar archive|TorchScript'
    with pytest.raises(Exception, match=reason):
        CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert not mark.exists()
