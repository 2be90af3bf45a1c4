"""Each fix: the symptom without it, its absence with it, and what it must not open."""

import argparse
import io
import pickle
import re
import tarfile
import zipfile
from collections import OrderedDict

import malicious
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from mmuniformer import compat
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.download import cached

upstream = pytest.mark.skipif(
    hasattr(mmengine_checkpoint, '_safe_torch_load'), reason='this mmengine is the fork'
)
has_allow_list = pytest.mark.skipif(
    not compat.TORCH_HAS_ALLOW_LIST, reason='this torch has no allow-list'
)


@pytest.fixture(params=['allow-list', 'unpickler'], autouse=True)
def way(request, monkeypatch):
    """Both ways to load: torch's own from 2.6 on, and the restricted unpickler for older ones."""
    allow_list = request.param == 'allow-list'
    if allow_list and not compat.TORCH_HAS_ALLOW_LIST:
        pytest.skip('this torch has no allow-list')
    monkeypatch.setattr(compat, 'TORCH_HAS_ALLOW_LIST', allow_list)
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    return request.param


def reload_safely(content, zipped=True):
    """Write with torch.save, read with the check on."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    file.seek(0)
    return compat.load_file(file)


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


@upstream
@has_allow_list
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
    found_array, found_scalar, empty = reload_safely((array, scalar, array[:0]))
    assert (empty.dtype, empty.shape) == (array.dtype, (0,))
    assert found_array.dtype == kind
    np.testing.assert_array_equal(found_array, array)
    assert found_scalar == scalar
    assert type(found_scalar) is type(scalar)


@pytest.mark.parametrize('module', ['numpy.core.multiarray', 'numpy._core.multiarray'])
def test_files_written_under_another_numpy_reload(module):
    """numpy 2 moved the module; the pickle is rewritten to the other name here."""
    file = io.BytesIO()
    torch.save(np.array([1.0, 2.0]), file, _use_new_zipfile_serialization=False)
    content = re.sub(rb'numpy\._?core\.multiarray', module.encode(), file.getvalue())
    assert compat.load_file(io.BytesIO(content)).tolist() == [1.0, 2.0]


@has_allow_list
def test_applying_twice_adds_nothing():
    before = set(torch.serialization.get_safe_globals())
    compat.apply()
    assert set(torch.serialization.get_safe_globals()) == before


@has_allow_list
def test_allow_list_of_another_package_is_respected(run_python):
    code = (
        'import torch; torch.serialization.add_safe_globals([getattr])\n'
        'import mmuniformer\n'
        'from torch._weights_only_unpickler import _get_user_allowed_globals as allowed\n'
        'print(allowed()["builtins.getattr"] is getattr)\n'
    )
    assert run_python('-c', code).stdout.splitlines()[-1:] == ['True']


@pytest.mark.parametrize('zipped', [True, False])
def test_weights_of_every_kind_reload(zipped):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    content = {
        'state_dict': model.state_dict(),
        'half': torch.rand(2).half(),
        'bfloat16': torch.rand(2).bfloat16(),
        'seen': torch.tensor([True]),
        'dtype': [torch.bfloat16, torch.uint8],
        'parameter': torch.nn.Parameter(torch.rand(2)),
        'args': argparse.Namespace(lr=1e-3),
        'meta': {'size': torch.Size([1, 2]), 'text': 'a', 'nested': [(1, None, 2.5, True)]},
    }
    found = reload_safely(content, zipped)
    assert list(found) == list(content)
    for key in ('half', 'bfloat16', 'seen', 'parameter'):
        assert torch.equal(found[key], content[key])
        assert found[key].dtype == content[key].dtype
    assert all(torch.equal(found['state_dict'][key], v) for key, v in model.state_dict().items())
    for key in ('dtype', 'args', 'meta'):
        assert found[key] == content[key]


def test_optimizer_and_schedule_reload():
    weight = torch.nn.Parameter(torch.rand(3))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    found = reload_safely({'optimizer': optimizer.state_dict()})
    assert torch.equal(
        found['optimizer']['state'][0]['exp_avg'], optimizer.state[weight]['exp_avg']
    )


@pytest.mark.parametrize('kind', malicious.STEPS)
def test_step_towards_the_system_is_refused(kind, tmp_path):
    malicious.save(malicious.STEPS[kind](tmp_path / 'executed'), tmp_path / 'evil.pth')
    with pytest.raises(
        pickle.UnpicklingError, match='Weights only load failed|no training history'
    ):
        compat.load_file(tmp_path / 'evil.pth')


@pytest.mark.parametrize('name', ['HistoryBuffer', 'numpy.core.multiarray.scalar', '_get_layout'])
def test_known_classes_and_functions_cannot_be_changed(name):
    """Opcode BUILD sets attributes of whatever lies on the stack."""
    place = {'HistoryBuffer': HistoryBuffer.__module__, '_get_layout': 'torch.serialization'}
    module, _, function = f'{place.get(name, "")}.{name}'.lstrip('.').rpartition('.')
    code = f'c{module}\n{function}\n(N}}Vmean\nI1\nstb.'.encode()
    with pytest.raises(pickle.UnpicklingError, match='is changed'):
        compat._RestrictedPickle.load(io.BytesIO(code))
    assert callable(HistoryBuffer.mean)


@pytest.mark.parametrize('code', [b'(cos\nsystem\nVtrue\no.', b'(Vtrue\nios\nsystem\n.', b'P1\n.'])
def test_other_ways_to_call_are_refused(code):
    with pytest.raises(pickle.UnpicklingError):
        compat._RestrictedPickle.load(io.BytesIO(code))


def test_a_file_does_not_change_statistics(monkeypatch):
    """HistoryBuffer keeps what a file gives as its methods, for all histories of the process."""
    with monkeypatch.context() as patch:
        patch.setitem(HistoryBuffer._statistics_methods, 'mean', HistoryBuffer.max)
        file = io.BytesIO()
        torch.save([HistoryBuffer([1.0, 3.0], [1, 1]), HistoryBuffer.mean], file)
    file.seek(0)
    history, method = compat.load_file(file)
    assert type(history) is HistoryBuffer
    assert history.statistics('mean') == 2
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean
    assert method is None


def test_a_history_without_numbers_is_refused():
    history = HistoryBuffer([1.0], [1])
    history._log_history = OrderedDict(shape=(1,))
    with pytest.raises(pickle.UnpicklingError, match='no arrays'):
        reload_safely(history)


@pytest.mark.parametrize('zipped', [False, True])
def test_tar_archives_are_not_unpacked(tmp_path, zipped):
    """A hard link in one would bring its mode to the file that it names."""
    victim, path = tmp_path / 'victim', tmp_path / 'old.pth'
    victim.touch(0o600)
    with tarfile.open(path, 'w') as tar:
        link = tarfile.TarInfo('storages')
        link.type, link.linkname, link.mode = tarfile.LNKTYPE, str(victim), 0o777
        tar.addfile(link)
    if zipped:  # one file can be both; torch.load looks at its start
        with zipfile.ZipFile(path, 'a') as archive:
            archive.writestr('archive/data.pkl', b'')
            archive.writestr('archive/version', b'3')
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match=r'\btar\b'):
        compat.load_file(path)
    assert victim.stat().st_mode & 0o777 == 0o600


def test_only_storages_are_read_beside_the_pickle():
    """torch writes a patch file for a class whose source differs from that in a checkpoint."""
    unpickler = compat._RestrictedUnpickler(io.BytesIO(b'(Vmodule\nN}tQ.'))
    unpickler.persistent_load = pytest.fail
    with pytest.raises(pickle.UnpicklingError, match='is no storage'):
        unpickler.load()


def test_script_archives_are_not_run(tmp_path):
    path = tmp_path / 'script.pt'
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)
    with pytest.raises((pickle.UnpicklingError, RuntimeError), match='TorchScript'):
        compat.load_file(path)


class TestMMEngine:
    """Its module of loaders, where it does not check."""

    @upstream
    def test_is_left_alone_where_torch_checks(self, monkeypatch, way):
        monkeypatch.setattr(mmengine_checkpoint, 'torch', torch)
        compat.keep_mmengine_from_running_checkpoints()
        assert (mmengine_checkpoint.torch is torch) == (way == 'allow-list')

    def test_names_a_missing_file(self, monkeypatch, tmp_path):
        monkeypatch.setattr(mmengine_checkpoint, 'torch', torch)
        compat.keep_mmengine_from_running_checkpoints()
        with pytest.raises(FileNotFoundError, match='none.pth'):
            load_checkpoint(torch.nn.Linear(1, 1), str(tmp_path / 'none.pth'))

    def test_fork_does_not_read_again_what_was_refused(self, tmp_path, monkeypatch):
        def read_again(file, map_location=None, weights_only=None):
            return torch.load(file, map_location=map_location, weights_only=False)

        def load_from_local(filename, map_location):
            return mmengine_checkpoint._safe_torch_load(filename, map_location=map_location)

        monkeypatch.setattr(mmengine_checkpoint, '_safe_torch_load', read_again, raising=False)
        CheckpointLoader.register_scheme('', load_from_local, force=True)
        mark, path = tmp_path / 'executed', tmp_path / 'evil.pth'
        malicious.save(malicious.touch(mark), path)
        compat.keep_mmengine_from_running_checkpoints()
        with pytest.raises(pickle.UnpicklingError):
            load_checkpoint(torch.nn.Linear(1, 1), str(path))
        assert not mark.exists()


@pytest.mark.parametrize('source', ['http://', 'https://', 'torchvision://'])
def test_malicious_checkpoint_from_the_web_is_refused(source, tmp_path, monkeypatch):
    """The file lies where a download would put it, so that nothing is fetched."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    mark, url = tmp_path / 'executed', 'https://example.invalid/evil.pth'
    if source == 'torchvision://':
        monkeypatch.setattr(mmengine_checkpoint, 'get_torchvision_models', lambda: {'evil': url})
        source += 'evil'
    else:
        source = url = f'{source}example.invalid/evil.pth'
    places = [cached(url), tmp_path / 'hub' / 'checkpoints' / 'evil.pth']
    places[0].parent.mkdir(parents=True)
    for place in places:
        malicious.save(malicious.touch(mark), place)
    with pytest.raises(CheckpointError, match='holds more than weights'):
        load_checkpoint(torch.nn.Linear(1, 1), source)
    assert not mark.exists()
    mmengine_checkpoint.load_url(url)  # mmengine's own way, which the fix replaces
    assert mark.exists()
