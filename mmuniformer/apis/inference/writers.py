"""What a run writes: COCO results, a data set of the images, tables, drawings and masks."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from filelock import FileLock, Timeout

from mmuniformer.apis.inference.decode import is_video
from mmuniformer.apis.inference.run import Task
from mmuniformer.apis.inference.sources import Frame, Source
from mmuniformer.errors import UserError, refuse_existing
from mmuniformer.models.weights.files import part_of, sync, whole_file

JPEGS = ('.jpg', '.jpeg')
JPEG_QUALITY = 92
LONGEST_JPEG = 65500
"""Pixels of a side that an encoder takes."""
LONGEST_FRAME = 8190
"""Pixels of a side of a drawn video: what MPEG-4 takes."""


class WriteError(UserError):
    """A file of the results cannot be written."""


class Writer:
    """Writes results of sources, and drawings if ``vis``, as they come; a context manager.

    The JSON files and the table of labels appear at the end, whole, also when the run is
    interrupted: then they hold what was done until then. Those of an earlier run stay where nothing
    was done or a file could not be written; ``finished`` tells. One run at a time writes into a
    folder.

    Raises:
        UserError: A file is there already (without ``force``), or is one of the sources; later, if
            another run writes into the folder.
        WriteError: Later, if a file cannot be written.
    """

    def __init__(
        self, folder: Path, sources: Sequence[Source], vis: bool = True, force: bool = False
    ):
        self.folder, self.vis = Path(folder), vis
        self.results = self.folder / 'predictions.json'
        self.table = self.folder / 'predictions.csv'
        self.listing = self.folder / 'images.json'
        self.images: list[dict[str, Any]] = []
        self.categories: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.records, self.finished = 0, False
        self.video: VideoFile | None = None
        self.force = force
        self.planned = [self.results, self.table, self.listing, *map(self.mask, sources)]
        self.planned += map(self.drawing, sources if vis else ())
        inputs = {os.path.realpath(source.path) for source in sources}
        for path in self.planned:
            if os.path.realpath(path) in inputs:
                raise UserError(f'{path} is an input and would be replaced: choose another --out')
        refuse_existing(self.planned, force)

    def drawing(self, source: Source) -> Path:
        """Return where a source's drawing goes."""
        suffix = source.path.suffix.lower()
        moving = is_video(source.path) or source.path.is_dir()
        kind = '.mp4' if moving else suffix if suffix in JPEGS else '.png'
        return self.folder / 'vis' / (source.name + kind)

    def mask(self, source: Source, index: int = 0) -> Path:
        """Return where the mask of an image or of a video's frame goes."""
        name = f'{source.name}/{index:06d}' if is_video(source.path) else source.name
        return self.folder / 'masks' / f'{name}.png'

    def __enter__(self) -> Writer:
        self.part = part_of(self.results)
        with ExitStack() as stack:
            stack.enter_context(sole_writer(self.results))
            refuse_existing(self.planned, self.force)  # another run may have ended meanwhile
            with writing(self.results):
                self.stream = self.part.open('w', encoding='utf-8')
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            self.close_video()
            if self.images and not isinstance(error, WriteError):
                content = {'images': self.images, 'categories': self.categories}
                with writing(self.results):
                    self.stream.write('\n]\n' if self.records else '[]\n')
                    self.stream.close()
                    write_whole(self.listing, (json.dumps(content, indent=1) + '\n').encode())
                    sync(self.part)
                    os.replace(self.part, self.results)
                if self.rows:
                    write_whole(self.table, as_csv(self.rows))
                self.finished = True
        finally:
            with suppress(OSError):  # a full disk was reported before
                self.stream.close()
            self.part.unlink(missing_ok=True)
            self.stack.close()

    def add(self, task: Task, frame: Frame, result: Any) -> None:
        """Write what a task predicted on a frame of a file.

        Raises:
            InputError: Frames of a video could not be drawn on; all else is written.
            WriteError: A file cannot be written.
        """
        height, width = frame.image.shape[:2]
        name = frame.source.path.as_posix()
        entry = {'id': frame.id, 'file_name': name, 'width': width, 'height': height}
        if frame.index is not None:
            entry['frame_id'] = frame.index
        if (mask := task.mask_file(result)) is not None:
            path = self.mask(frame.source, frame.index or 0)
            write_whole(path, mask, durable=False)
            entry['mask'] = path.relative_to(self.folder).as_posix()
        drawing = self.drawing(frame.source)
        if self.vis:
            entry['vis'] = drawing.relative_to(self.folder).as_posix()
        lines = [json.dumps(record) for record in task.records(frame, result)]
        if lines:
            with writing(self.results):
                # One call, so that an interrupt leaves no half of a record.
                self.stream.write((',\n' if self.records else '[\n') + ',\n'.join(lines))
        self.records += len(lines)
        self.rows += task.rows(frame, result)
        self.images.append(entry)
        self.categories = task.categories
        for index, image in frame.images() if self.vis else ():
            self.draw(drawing, index, frame.fps, task.draw(image, result))

    def draw(self, path: Path, index: int | None, fps: float | None, drawing: np.ndarray) -> None:
        """Write a drawing, or add it to its video."""
        if index is None:
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in JPEGS else []
            if path.suffix in JPEGS:
                drawing = fitted(drawing, LONGEST_JPEG)
            data = cv2.imencode(path.suffix, drawing, options)[1].tobytes()
            return write_whole(path, data, durable=False)
        if self.video is None or self.video.path != path:
            self.close_video()
            self.video = VideoFile(path, fps, drawing)
        self.video.write(index, drawing)

    def close_video(self) -> None:
        """Finish the video that is being written."""
        if self.video is not None:
            video, self.video = self.video, None
            video.close()


class VideoFile:
    """An MP4 that grows by frames; where some are missing, the one before is held."""

    def __init__(self, path: Path, fps: float, frame: np.ndarray):
        self.path = path
        self.frames, self.last = 0, None
        self.size = fitted(frame, LONGEST_FRAME, 2).shape[1::-1]
        code = cv2.VideoWriter_fourcc(*'mp4v')
        with writing(path):
            self.part = part_of(path)
            self.writer = cv2.VideoWriter(str(self.part), code, fps, self.size)
        if not self.writer.isOpened():
            self.part.unlink(missing_ok=True)
            raise UserError(f'{path}: this OpenCV cannot write MP4 videos: use --no-vis')

    def write(self, index: int, frame: np.ndarray) -> None:
        """Add a frame at its place in time."""
        if frame.shape[1::-1] != self.size:  # a writer would leave it out
            frame = cv2.resize(frame, self.size)
        while self.frames < index:
            self.writer.write(frame if self.last is None else self.last)
            self.frames += 1
        self.writer.write(frame)
        self.frames, self.last = index + 1, frame

    def close(self) -> None:
        """Give the file its name if it is whole: OpenCV does not tell of a full disk."""
        self.writer.release()
        with writing(self.path):
            try:
                written = cv2.VideoCapture(str(self.part)).get(cv2.CAP_PROP_FRAME_COUNT)
                if written < self.frames:
                    raise OSError('it does not hold all frames; is the disk full?')
                os.replace(self.part, self.path)
            finally:
                self.part.unlink(missing_ok=True)


def fitted(image: np.ndarray, longest: int, shortest: int = 1) -> np.ndarray:
    """Return an image that is scaled down, if need be, for its sides to be no longer."""
    sides = image.shape[1::-1]
    scale = min(1, longest / max(sides))
    size = tuple(max(shortest, round(side * scale)) for side in sides)
    return image if size == sides else cv2.resize(image, size)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Refuse a file beside which another run, in this process or another, is writing."""
    lock = FileLock(path.with_name('.lock'))
    with writing(path):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f'another run writes into {path.parent}: choose another --out, or wait for its end'
            ) from None
        except NotImplementedError:  # on a file system without locks
            yield
            return
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of a file; turn an ``OSError`` inside into one that names the file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise WriteError(f'{path} could not be written: {error.strerror or error}') from error


def as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    """Return rows as a CSV file, whose first line has their keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def write_whole(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a file and the folders above it; an interrupt or a full disk leaves no half."""
    with writing(path), whole_file(path, durable) as part:
        part.write_bytes(data)
