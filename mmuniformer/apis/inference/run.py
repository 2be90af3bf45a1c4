"""The loop of a prediction run, from frames to results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mmuniformer.apis.inference.sources import Frame, Frames
from mmuniformer.errors import InputError


class Task(Protocol):
    """What is predicted on frames, and how a result is written; a subclass for each task."""

    unit: str
    """What the records are of, in the plural."""
    categories: Sequence[Mapping[str, Any]]
    """COCO categories of the records."""
    skipped: Mapping[Any, int] = MappingProxyType({})
    """Number of boxes that were not used, by frame id."""

    def __call__(self, frames: Sequence[Frame]) -> Sequence[Any]:
        """Return a result for each frame."""

    def samples(self, frames: Sequence[Frame]) -> Sequence[Any]:
        """Return the framework's data sample for each frame, with all that was predicted."""

    def records(self, frame: Frame, result: Any) -> list[dict[str, Any]]:
        """Return the COCO results of a frame."""

    def rows(self, frame: Frame, result: Any) -> list[dict[str, Any]]:
        """Return the rows of a table that a frame adds; none, unless the task has a table."""
        return []

    def draw(self, image: np.ndarray, result: Any) -> np.ndarray:
        """Draw a result on a BGR image ``(H, W, 3)``."""

    def mask_file(self, result: Any) -> bytes | None:
        """Return a PNG of the result; None if the task has none."""
        return None


def predict(task: Task, frames: Frames, batch_size: int = 1) -> Iterator[tuple[Frame, Any]]:
    """Yield each frame with its result; what the network cannot take goes to ``frames.skipped``.

    ``batch_size`` frames are decoded and predicted on at a time; fewer of large images.
    """
    for batch in batches(frames, batch_size, frames.max_pixels):
        for frame, result in zip(batch, attempt(task, batch), strict=True):
            if isinstance(result, InputError):
                frames.skipped.append(str(result))
            else:
                yield frame, result
        del batch, frame, result  # large, and not needed while the next are made


def batches(frames: Iterable[Frame], size: int, max_pixels: int) -> Iterator[list[Frame]]:
    """Yield frames, up to ``size`` at a time and, of several, up to ``max_pixels`` in all."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and sum(f.image.size // 3 for f in (*batch, frame)) > max_pixels:
            yield batch
            batch = []
        batch.append(frame)
        del frame
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def attempt(
    run: Callable[[Sequence[Frame]], Sequence[Any]], batch: Sequence[Frame]
) -> Iterator[Any]:
    """Yield a result for each frame; for one that cannot be used, an ``InputError`` that names it.

    It does not stop the others.
    """
    try:
        yield from run(batch)
    except (InputError, MemoryError) as error:
        if len(batch) > 1:
            for frame in batch:
                yield from attempt(run, [frame])
        else:
            yield InputError(f'{batch[0]}: {str(error) or "not enough memory"}')
