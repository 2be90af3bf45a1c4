"""The loop of a prediction run, from frames to results, and on to files.

Beside a GPU three threads share the work: one reads and prepares the next batch, the caller's runs
the network, one draws and writes. Each does so in the order of the frames, so that results do not
depend on it. On a CPU, whose cores the network keeps busy, threads of their own would slow it down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from copy import copy
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmuniformer.apis.inference.sources import Frame, Frames
from mmuniformer.errors import InputError

LARGE = 2**24
"""Pixels of frames that are alone in memory."""


class Task(Protocol):
    """What is predicted on frames, and how a result is written; a subclass for each task."""

    unit: str
    """What the records are of, in the plural."""
    categories: Sequence[Mapping[str, Any]]
    """COCO categories of the records."""
    skipped: Mapping[Any, int] = MappingProxyType({})
    """Number of boxes that were not used, by frame id."""
    overlapped = True
    """Whether reading and writing have threads of their own."""

    def prepare(self, frame: Frame) -> Frame:
        """Return a frame with what can be done on it before the network runs."""
        return frame

    def __call__(self, frames: Sequence[Frame]) -> Sequence[Any]:
        """Return a result for each frame, prepared or not."""

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


class Batch(NamedTuple):
    """Prepared frames, and the state of ``Frames`` once they are read."""

    frames: list[Frame]
    skipped: list[str]
    read: int
    total: int


def predict_and_write(
    task: Task,
    frames: Frames,
    write: Callable[[Task, Frame, Any], None],
    batch_size: int = 1,
) -> Iterator[None]:
    """Predict as ``predict`` does, and write by ``Writer.add``. Yield as frames are done.

    Up to ``batch_size`` results wait to be written. Those that are made when the caller stops are
    written, too.
    """
    waiting: deque[Future[None]] = deque()

    def written() -> None:
        try:
            waiting.popleft().result()
        except InputError as error:
            frames.skipped.append(str(error))

    with closing(predict(task, frames, batch_size)) as results, thread_for(task) as thread:
        for frame, result in results:
            waiting.append(thread.submit(write, task, frame, result))
            most = 0 if alone(task, [frame]) else batch_size
            del frame, result
            while len(waiting) > most:
                yield written()
        while waiting:
            yield written()


def predict(task: Task, frames: Frames, batch_size: int = 1) -> Iterator[tuple[Frame, Any]]:
    """Yield each frame with its result; what the network cannot take goes to ``frames.skipped``.

    ``batch_size`` frames are predicted on at a time; fewer of large images.
    """
    with closing(ahead(task, read(task, frames, batch_size))) as ready:
        for batch in ready:
            frames.skipped += batch.skipped
            frames.read, frames.total = batch.read, batch.total
            for frame, result in zip(batch.frames, attempt(task, batch.frames), strict=True):
                if isinstance(result, InputError):
                    frames.skipped.append(str(result))
                else:
                    yield frame, result
                del frame, result  # large, and not needed while the next are made
            del batch


def read(task: Task, frames: Frames, batch_size: int) -> Iterator[Batch]:
    """Yield batches of prepared frames; ``frames`` itself stays in the state of what is done."""
    frames = copy(frames)
    frames.skipped = []
    for batch in batches(frames, batch_size, frames.max_pixels):
        ready = [prepared(task, frame) for frame in batch]
        yield Batch(ready, frames.skipped, frames.read, frames.total)
        del batch, ready
        frames.skipped = []
    yield Batch([], frames.skipped, frames.read, frames.total)


def prepared(task: Task, frame: Frame) -> Frame:
    """Return a prepared frame; one that cannot be used stays as it is, for ``task`` to say why."""
    try:
        return task.prepare(frame)
    except (InputError, MemoryError):
        return frame


def ahead(task: Task, items: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches made on a thread: the next while one is in use, unless this one is alone."""
    with thread_for(task) as thread:
        coming = thread.submit(next, items, None)
        while (batch := coming.result()) is not None:
            del coming  # holds the batch, too
            by_itself = alone(task, batch.frames)
            if not by_itself:
                coming = thread.submit(next, items, None)
            yield batch
            del batch
            if by_itself:
                coming = thread.submit(next, items, None)


def alone(task: Task, frames: Iterable[Frame]) -> bool:
    """Tell whether nothing else should be read or written while these frames are in memory."""
    return not task.overlapped or sum(frame.image.size // 3 for frame in frames) >= LARGE


def thread_for(task: Task) -> Executor:
    """Return what reads or writes for a task."""
    return ThreadPoolExecutor(1) if task.overlapped else InTurn()


class InTurn(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Return the finished run."""
        future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future


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
        yield from run(batch) if batch else ()
    except (InputError, MemoryError) as error:
        if len(batch) > 1:
            for frame in batch:
                yield from attempt(run, [frame])
        else:
            yield InputError(f'{batch[0]}: {str(error) or "not enough memory"}')
