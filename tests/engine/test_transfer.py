"""Batches are the same on the other side, in one piece of memory."""

from __future__ import annotations

import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import BaseDataElement, InstanceData
from torch.multiprocessing import reductions
from torch.utils.data import DataLoader, Dataset

from mmuniformer.engine.transfer import ALIGNED, Packing


class Samples(Dataset):
    """Images of two sizes, with instances and what they were made from."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        random = np.random.default_rng(index)
        image = torch.from_numpy(random.integers(0, 255, (3, 5 + index % 2, 4), np.uint8))
        boxes = InstanceData(
            boxes=torch.from_numpy(random.random((index % 3, 4), np.float32)),
            names=['name'] * (index % 3),
        )
        sample = BaseDataElement(metainfo={'mask': random.random((3, 2)).T, 'flip': index > 2})
        sample.label, sample.instances = torch.tensor(index), boxes
        sample.half = torch.tensor(index, dtype=torch.bfloat16)  # NumPy has no such type
        return {'inputs': image, 'data_samples': sample}


def everything(value):
    """What a batch holds, as values that can be compared."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return type(value), value.dtype, tuple(value.shape), value.tolist()
    if isinstance(value, BaseDataElement):
        return type(value), everything(value.to_dict())
    if isinstance(value, dict):
        return {key: everything(each) for key, each in value.items()}
    return [everything(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize('persistent', [False, True])
def test_batches_are_those_that_are_loaded_in_the_process(persistent):
    options = {'batch_size': 4, 'shuffle': False}
    wanted = list(DataLoader(Samples(), collate_fn=pseudo_collate, **options))
    packed = DataLoader(
        Samples(), collate_fn=Packing(pseudo_collate), num_workers=1,
        persistent_workers=persistent, **options,
    )  # fmt: skip
    for _ in range(2):
        found = list(packed)
        assert everything(found) == everything(wanted)
    assert everything(found[:1]) != everything(wanted[1:])
    for image in found[0]['inputs']:
        assert image.data_ptr() % ALIGNED == 0
        image += 1  # is not read-only


def test_a_batch_crosses_in_one_piece(monkeypatch):
    pieces = []
    reduce = reductions.reduce_storage
    monkeypatch.setitem(
        ForkingPickler._extra_reducers, torch.UntypedStorage,
        lambda storage: pieces.append(storage.nbytes()) or reduce(storage),
    )  # fmt: skip
    samples = [Samples()[index] for index in range(4)]
    for sample in samples:
        del sample['data_samples'].half
    ForkingPickler.dumps(pseudo_collate(samples))
    assert len(pieces) == 12  # images, labels and boxes of four
    pieces.clear()
    ForkingPickler.dumps(Packing(pseudo_collate)(samples))
    assert len(pieces) == 1


@pytest.mark.parametrize('batch', [[], {'names': ['a']}, [torch.zeros(0, 4)]])
def test_batches_without_numbers(batch):
    found = pickle.loads(pickle.dumps(Packing(lambda samples: batch)([])))
    assert everything(found) == everything(batch)
