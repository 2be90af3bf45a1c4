"""The loop of a prediction run, from frames to results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
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

    ``batch_size`` frames are decoded and predicted on at a time.
    """
    iterator = iter(frames)
    while batch := list(islice(iterator, batch_size)):
        try:
            yield from zip(batch, task(batch), strict=True)
        except InputError:  # one frame that cannot be used does not stop the others
            for frame in batch:
                try:
                    yield frame, task([frame])[0]
                except InputError as error:
                    frames.skipped.append(f'{frame}: {error}')
