"""safetensors files wherever a checkpoint is accepted, and as what ``convert`` writes."""

import sys

import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch import nn

from mmuniformer.apis.convert import convert
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import UniFormer
from mmuniformer.models.weights import tensors
from mmuniformer.models.weights.files import load_state_dict_file
from mmuniformer.models.weights.released import record_of

pytest.importorskip('safetensors')


@pytest.fixture(scope='module')
def nano():
    torch.manual_seed(0)
    return UniFormer('nano')


@pytest.fixture
def path(nano, tmp_path):
    """The weights of ``nano``, as another program writes them."""
    from safetensors.torch import save_file

    save_file(nano.state_dict(), tmp_path / 'nano.safetensors')
    return tmp_path / 'nano.safetensors'


def assert_equal(state, nano):
    assert state.keys() == nano.state_dict().keys()
    assert all(torch.equal(value, nano.state_dict()[key]) for key, value in state.items())


def test_by_init_cfg(path, nano):
    model = UniFormer('nano', init_cfg={'type': 'Pretrained', 'checkpoint': str(path)})
    model.init_weights()
    assert_equal(model.state_dict(), nano)


@pytest.mark.parametrize('map_location', [None, 'cpu', torch.device('cpu'), lambda s, _: s])
def test_by_the_loader_of_mmengine(path, nano, map_location):
    model = UniFormer('nano')
    load_checkpoint(model, str(path), map_location)
    assert_equal(model.state_dict(), nano)


def test_mmengine_reads_other_files_as_before():
    loader = CheckpointLoader._get_checkpoint_loader('work_dirs/my.safetensors.d/epoch_1.pth')
    assert loader.__name__ == 'load_from_local'


def test_from_the_web(server, path, nano):
    server.files = {'/nano.safetensors?download=true': path.read_bytes()}
    raw = load_state_dict_file(f'{server.url}/nano.safetensors?download=true')
    assert_equal(raw['state_dict'], nano)


def test_convert_writes_and_reads_what_is_known(tmp_path, nano):
    meta = {
        'classes': ('person',), 'keypoint_id2name': {0: 'nose', 1: 'tail'},
        'sigmas': np.array([0.5, 0.25]),
    }  # fmt: skip
    state = {f'backbone.{key}': value for key, value in nano.state_dict().items()}
    state |= {'head.final_layer.bias': torch.rand(2), 'head.shared': state['backbone.norm1.bias']}
    raw = {'state_dict': state, 'meta': {'dataset_meta': meta}}
    torch.save(raw, tmp_path / 'epoch_1.pth')
    target = tmp_path / 'pose.safetensors'
    convert(str(tmp_path / 'epoch_1.pth'), target, head_dim=16)
    found = load_state_dict_file(target)
    assert list(found['state_dict']) == sorted(state)
    assert all(torch.equal(found['state_dict'][key], value) for key, value in state.items())
    assert record_of(found)['head_dim'] == 16
    assert found['meta']['dataset_meta'] == {
        'classes': ['person'], 'keypoint_id2name': {0: 'nose', 1: 'tail'}, 'sigmas': [0.5, 0.25],
    }  # fmt: skip
    convert(str(target), tmp_path / 'again.pth')
    again = torch.load(tmp_path / 'again.pth', weights_only=True)
    assert again['meta']['dataset_meta'] == found['meta']['dataset_meta']
    with pytest.raises(UserError, match='by name alone, not in the released layout'):
        convert(str(target), tmp_path / 'released.safetensors', to='released')


@pytest.mark.parametrize('share', [0.0, 0.001, 0.5, 0.99])
def test_truncated(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(CheckpointError, match='is truncated'):
        load_state_dict_file(path)


def test_a_pickle_under_the_name_is_not_run(tmp_path):
    mark, path = tmp_path / 'executed', tmp_path / 'evil.safetensors'
    path.write_bytes(f'cos\nmkdir\n(V{mark}\ntR.'.encode())
    for use in (load_state_dict_file, lambda p: load_checkpoint(nn.Linear(1, 1), str(p))):
        with pytest.raises(CheckpointError, match='is truncated or no'):
            use(path)
    assert not mark.exists()


def test_head_dim_of_the_file_is_heeded(tmp_path, nano):
    path = tmp_path / 'x.safetensors'
    tensors.write(path, nano.state_dict(), {'mmuniformer': {'head_dim': 32}})
    model = UniFormer('nano', init_cfg={'type': 'Pretrained', 'checkpoint': str(path)})
    with pytest.raises(CheckpointError, match='head_dim 32 .as recorded'):
        model.init_weights()


def test_without_the_package_the_error_says_how_to_get_it(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    for use in (load_state_dict_file, lambda p: load_checkpoint(nn.Linear(1, 1), str(p))):
        with pytest.raises(CheckpointError, match='pip install safetensors'):
            use(path)
    with pytest.raises(CheckpointError, match='pip install safetensors'):
        tensors.write(tmp_path / 'new.safetensors', {}, {})
