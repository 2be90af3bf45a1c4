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
        try:
            yield from zip(batch, task(batch), strict=True)
        except InputError:  # one frame that cannot be used does not stop the others
            for frame in batch:
                try:
                    yield frame, task([frame])[0]
                except InputError as error:
                    frames.skipped.append(f'{frame}: {error}')
