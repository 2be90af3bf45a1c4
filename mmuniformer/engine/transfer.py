"""Batches from the processes that load them in one piece of shared memory.

torch sends each tensor of a batch in a piece of its own: a file and messages between the processes
for each image, label and heatmap, while the network waits.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes, of which arrays start at a multiple."""


class Packing:
    """A ``collate_fn`` whose batches cross to another process packed."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any]):
        self.collate = collate

    def __call__(self, samples: Sequence[Any]) -> Any:
        """Collate samples."""
        return Packed(self.collate(samples))


class Packed:
    """A batch; what another process receives is the batch itself."""

    def __init__(self, batch: Any):
        self.batch = batch

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[bytes, list[int], Tensor]]:
        stream, buffers = io.BytesIO(), []
        Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(self.batch)
        arrays = [buffer.raw() for buffer in buffers]
        sizes = [array.nbytes for array in arrays]
        memory = torch.empty(sum(map(padded, sizes)), dtype=torch.uint8).share_memory_()
        for place, array in zip(places(memory, sizes), arrays, strict=True):
            place[:] = array
        return unpack, (stream.getvalue(), sizes, memory)


class Pickler(pickle.Pickler):
    """Pickles tensors as the arrays that they hold, which may lie apart from the stream."""

    def reducer_override(self, value: Any) -> Any:
        """Return how to pickle a value; what NumPy has no type for goes torch's way."""
        if type(value) is Tensor:
            with contextlib.suppress(TypeError, RuntimeError):
                return torch.from_numpy, (value.numpy(),)
        return NotImplemented


def unpack(stream: bytes, sizes: Sequence[int], memory: Tensor) -> Any:
    """Return a batch whose arrays lie in a piece of memory, as many bytes each."""
    return pickle.loads(stream, buffers=places(memory, sizes))


def places(memory: Tensor, sizes: Sequence[int]) -> list[memoryview]:
    """Return where arrays of so many bytes lie in memory."""
    whole = memoryview(memory.numpy())
    starts = itertools.accumulate(map(padded, sizes), initial=0)
    return [whole[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def padded(size: int) -> int:
    """Return a number of bytes, rounded up so that what follows is aligned."""
    return -(-size // ALIGNED) * ALIGNED
