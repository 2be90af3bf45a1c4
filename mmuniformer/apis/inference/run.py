"""The loop of a prediction run, from frames to results."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmuniformer.apis.inference.det import DetTask
from mmuniformer.apis.inference.pose import PoseTask
from mmuniformer.apis.inference.seg import SegTask
from mmuniformer.apis.inference.sources import Frame, Frames
from mmuniformer.errors import InputError

Task = DetTask | SegTask | PoseTask
"""Called with frames, it gives a result for each; ``records`` and ``draw`` say what to write."""


def predict(task: Task, frames: Frames, batch_size: int = 1) -> Iterator[tuple[Frame, Any]]:
    """Yield each frame with its result; what the network cannot take goes to ``frames.skipped``.

    Args:
        task: What to predict.
        frames: What to predict on.
        batch_size: Frames decoded and predicted on at a time.
    """
    iterator = iter(frames)
    while batch := list(islice(iterator, batch_size)):
        yield from predict_batch(task, batch, frames.skipped)


def predict_batch(
    task: Task, batch: list[Frame], skipped: list[str]
) -> Iterator[tuple[Frame, Any]]:
    """Predict on a batch; one frame that the network cannot take does not stop the others."""
    try:
        results = task(batch)
    except InputError as error:
        if len(batch) == 1:
            skipped.append(f'{batch[0]}: {error}')
        else:
            for frame in batch:
                yield from predict_batch(task, [frame], skipped)
    else:
        yield from zip(batch, results, strict=True)
