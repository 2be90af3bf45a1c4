"""Each fix: the symptom without it, its absence with it, and what it must not open."""

import io
import os
import pickle
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import load_checkpoint, load_from_http

from mmuniformer import compat
from mmuniformer.errors import CheckpointError

pytestmark = pytest.mark.frameworks


def reload_safely(content):
    """Write with torch.save, read with the check on."""
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Reduced:
    """Pickles as the call ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


# Reloads what a training run leaves in its message hub, without the fix and with it.
RELOAD = """
import sys, torch
from mmengine.runner.checkpoint import _load_checkpoint
try:
    _load_checkpoint(sys.argv[1], map_location='cpu')
except Exception as error:
    print("failed:", "Weights only load failed" in str(error))
import mmuniformer
hub = _load_checkpoint(sys.argv[1], map_location='cpu')['message_hub']
print(hub['log_scalars']['train/loss'].statistics('mean'), hub['runtime_info']['best'],
      hub['runtime_info']['sigmas'].tolist(), bool(hub['runtime_info']['seen']))
"""


def test_training_checkpoint_reloads_only_with_the_fix(run_python, tmp_path):
    hub = MessageHub.get_instance('test_compat_run')
    hub.update_scalar('train/loss', np.float64(2.5))
    hub.update_scalar('train/loss', 1)
    hub.update_info('best', np.float32(0.5))
    hub.update_info('sigmas', np.array([0.5, 0.25], dtype=np.float32))
    hub.update_info('flips', np.array([1, 0]))
    hub.update_info('seen', np.bool_(True))
    path = tmp_path / 'run.pth'
    torch.save({'state_dict': {}, 'message_hub': hub.state_dict()}, path)
    done = run_python('-c', RELOAD, path)
    before, after = (line for line in done.stdout.splitlines() if not line.startswith('Loads'))
    assert before == 'failed: True', done.stderr
    assert after == '1.75 0.5 [0.5, 0.25] True'


def test_history_survives_with_its_statistics():
    history = reload_safely(HistoryBuffer([1.0, 3.0, 2.0], [1, 1, 2]))
    figures = [history.statistics(name) for name in ('mean', 'max', 'min', 'current')]
    assert figures == [1.5, 3.0, 1.0, 2.0]


def test_message_hub_resumes_from_the_reloaded_state():
    hub = MessageHub.get_instance('test_compat')
    hub.update_scalar('loss', 4.0)
    again = MessageHub.get_instance('test_compat_again')
    again.load_state_dict(reload_safely(hub.state_dict()))
    assert again.get_scalar('loss').current() == 4.0


@pytest.mark.parametrize('kind', ['bool', 'uint8', 'int32', 'int64', 'float32', 'float64'])
def test_numpy_numbers_reload(kind):
    array, scalar = np.arange(3).astype(kind), np.ones((), kind)[()]
    found_array, found_scalar = reload_safely((array, scalar))
    assert found_array.dtype == kind
    np.testing.assert_array_equal(found_array, array)
    assert found_scalar == scalar
    assert type(found_scalar) is type(scalar)


def test_files_written_under_numpy_1_reload(tmp_path):
    """Their pickles name ``numpy.core``; the zip is rewritten to that name here."""
    file = io.BytesIO()
    torch.save(np.array([1.0, 2.0]), file, _use_new_zipfile_serialization=False)
    old = file.getvalue().replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    assert old != file.getvalue()
    assert torch.load(io.BytesIO(old), weights_only=True).tolist() == [1.0, 2.0]


def test_applying_twice_adds_nothing():
    before = set(torch.serialization.get_safe_globals())
    compat.apply()
    assert set(torch.serialization.get_safe_globals()) == before
    kinds = [type(finder) for finder in sys.meta_path]
    assert kinds.count(compat._SimccVisFinder) == 1


def test_allow_list_of_another_package_is_respected(run_python):
    code = (
        'import torch; torch.serialization.add_safe_globals([getattr])\n'
        'import mmuniformer\n'
        'from torch._weights_only_unpickler import _get_user_allowed_globals as allowed\n'
        'print(allowed()["builtins.getattr"] is getattr)\n'
    )
    assert run_python('-c', code).stdout.splitlines()[-1:] == ['True']


def test_older_torch_is_left_alone(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    added = []
    monkeypatch.setattr(torch.serialization, 'add_safe_globals', added.append)
    compat.allow_training_checkpoints()
    assert added == []
    monkeypatch.setattr(torch, '__version__', '2.6.0')
    compat.allow_training_checkpoints()
    assert added == [[]]


# Every way we know from an allowed object to the system, and the direct ones.
MALICIOUS = {
    'os.system': lambda mark: Reduced(os.system, f'touch {mark}'),
    'eval': lambda mark: Reduced(eval, f'open({str(mark)!r}, "w")'),
    'open': lambda mark: Reduced(open, str(mark), 'w'),
    'getattr on a module': lambda mark: Reduced(
        Reduced(getattr, Reduced(__import__, 'os'), 'system'), f'touch {mark}'
    ),
    'globals of a method': lambda mark: Reduced(
        getattr, Reduced(getattr, HistoryBuffer, 'mean'), '__globals__'
    ),
    'private method': lambda mark: Reduced(getattr, HistoryBuffer, '__init__'),
    'class of a class': lambda mark: Reduced(getattr, HistoryBuffer, '__class__'),
    'method of an array': lambda mark: Reduced(getattr, np.ndarray, 'tofile'),
    'bound method': lambda mark: Reduced(getattr, np.zeros(1), 'tofile'),
    'calling a statistic': lambda mark: Reduced(
        Reduced(getattr, HistoryBuffer, 'mean'), HistoryBuffer([1.0], [1])
    ),
}


class CallPickler(pickle._Pickler):
    """Pickles Reduced as written, also where the function is itself Reduced."""

    def save_reduce(self, func, args, *rest, obj=None, **named):
        if isinstance(func, Reduced):
            self.save(func)
            self.save(args)
            self.write(pickle.REDUCE)
        else:
            super().save_reduce(func, args, *rest, obj=obj, **named)


def save_malicious(content, path):
    """Write what torch.save would, with our pickler."""
    module = type(sys)('calls')
    module.Pickler = CallPickler
    torch.save({'state_dict': {}, 'payload': content}, path, pickle_module=module)


@pytest.mark.parametrize('kind', MALICIOUS)
def test_malicious_checkpoint_is_refused(kind, tmp_path):
    mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    save_malicious(MALICIOUS[kind](mark), path)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
    assert not mark.exists()


def test_the_attack_works_without_the_check(tmp_path):
    """Otherwise the test above would prove nothing."""
    mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
    save_malicious(MALICIOUS['getattr on a module'](mark), path)
    unchecked = {'weights_only': False}
    torch.load(path, **unchecked)
    assert mark.exists()


@pytest.mark.parametrize('scheme', ['http', 'https'])
def test_malicious_checkpoint_from_the_web_is_refused(scheme, tmp_path, monkeypatch):
    """The file lies where a download would put it, so that nothing is fetched."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    mark, url = tmp_path / 'executed', f'{scheme}://example.invalid/evil.pth'
    save_malicious(MALICIOUS['os.system'](mark), tmp_path / 'hub' / 'checkpoints' / 'evil.pth')
    with pytest.raises(CheckpointError, match='holds more than weights'):
        load_checkpoint(torch.nn.Linear(1, 1), url)
    assert not mark.exists()
    load_from_http(url)  # mmengine's own way, which the fix replaces
    assert mark.exists()
