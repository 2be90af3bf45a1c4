"""Checkpoints that are damaged, of another network or odd are predicted with or refused by name."""

import io
import json
import struct
import zipfile

import nano_models
import numpy as np
import pytest
import torch

from mmuniformer import Predictor
from mmuniformer.errors import UserError

pytestmark = [pytest.mark.frameworks, pytest.mark.slow]
pytest.importorskip('mmseg')

GIB = 2**30


def claims(raw, sizes):
    """Let all entries of a zip file claim a size, in their own and in the central headers."""
    data = bytearray(raw)
    for mark, offset in ((b'PK\x01\x02', 20), (b'PK\x03\x04', 18)):
        place = data.find(mark)
        while place >= 0:
            if place + offset + 8 <= len(data):
                data[place + offset : place + offset + 8] = struct.pack('<II', sizes, sizes)
            place = data.find(mark, place + 4)
    return bytes(data)


def blown_up(raw):
    """Compress a record of 64 MiB of zeros in the place of 64 numbers."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(raw)) as old,
        zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, bytes(2**26) if name.endswith('data/0') else old.read(name))
    return packed.getvalue()


def tensors(header):
    header = json.dumps(header).encode()
    return struct.pack('<Q', len(header)) + header + bytes(64)


HUGE = {'x': {'dtype': 'F32', 'shape': [10 * GIB // 4], 'data_offsets': [0, 10 * GIB]}}
DAMAGED = {
    **{f'first {n} bytes': lambda raw, n=n: raw[:n] for n in (0, 1, 4, 100, 1000)},
    'half': lambda raw: raw[: len(raw) // 2],
    'last byte missing': lambda raw: raw[:-1],
    'zip of 4 GiB entries': lambda raw: claims(raw, 0xFFFFFFF0),
    'zip bomb': blown_up,
    'safetensors of a header of 10 GiB': lambda raw: struct.pack('<Q', 10 * GIB) + b'{}',
    'safetensors of 10 GiB': lambda raw: tensors(HUGE),
}
ODD = {
    'state_dict a list': ({'state_dict': [1, 2]}, 'holds no weights'),
    'state_dict of int keys': ({'state_dict': {1: torch.zeros(2)}}, 'no weights for the backbone'),
    'state_dict of strings': ({'state_dict': {'backbone.x': 'y'}}, 'holds no weights'),
    'a tensor': (torch.zeros(3), 'holds no weights, but a Tensor'),
    'a list': ([1], 'holds no weights, but a list'),
}
METADATA = {
    'text': 'x',
    'list': [1],
    'none': None,
    'int keys': {1: 2},
    'dataset_meta a list': {'dataset_meta': [1, 2]},
    'dataset_meta a text': {'dataset_meta': 'abc'},
    'dataset_meta of int keys': {'dataset_meta': {1: 2}},
    'classes a number': {'dataset_meta': {'classes': 3}},
    'CLASSES a number': {'CLASSES': 3},
    'classes of lists': {'dataset_meta': {'classes': [[1], None]}},
    'palette of texts': {'dataset_meta': {'classes': list('abcd'), 'palette': [['x'] * 3] * 4}},
    'config a number': {'cfg': 3},
    'config no Python': {'cfg': '((('},
}


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    return nano_models.save_weights(tmp_path_factory.mktemp('weights')) / 'seg.pth'


@pytest.fixture
def predict(tmp_path):
    """Predict with a checkpoint, given by its bytes or its content."""

    def run(content, suffix='.pth'):
        file = tmp_path / f'broken{suffix}'
        file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
        image = np.random.RandomState(0).randint(0, 255, (128, 128, 3), np.uint8)
        return Predictor(nano_models.CONFIGS['seg'], str(file))(image)

    return run


@pytest.mark.parametrize('name', DAMAGED)
def test_damaged_file_is_named(name, good, predict):
    suffix = '.safetensors' if 'safetensors' in name else '.pth'
    with pytest.raises(UserError, match=rf'broken{suffix} is truncated or no PyTorch checkpoint'):
        predict(DAMAGED[name](good.read_bytes()), suffix)


@pytest.mark.parametrize('name', ODD)
def test_what_is_no_state_dict_is_named(name, predict):
    content, message = ODD[name]
    with pytest.raises(UserError, match=rf'broken\.pth.* {message}'):
        predict(content)


def test_transposed_tensor_is_named(good, predict):
    state = torch.load(good, weights_only=True)['state_dict']
    name = 'backbone.blocks3.0.mlp.fc1.weight'
    state[name] = state[name].t().contiguous()
    with pytest.raises(UserError, match=r'blocks3\.0\.mlp\.fc1\.weight \(file \(64, 256\)'):
        predict({'state_dict': state})


@pytest.mark.parametrize('name', METADATA)
def test_odd_metadata_change_no_prediction(name, good, predict):
    state = torch.load(good, weights_only=True)['state_dict']
    plain, odd = (predict({'state_dict': state, 'meta': meta}) for meta in ({}, METADATA[name]))
    assert len(np.unique(plain[0]['label_map'])) > 1
    assert np.array_equal(odd[0]['label_map'], plain[0]['label_map'])
