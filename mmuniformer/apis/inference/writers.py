"""What a run writes: COCO results, a data set of the images, tables, drawings and masks."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmuniformer.apis.inference.decode import is_video
from mmuniformer.apis.inference.run import Task
from mmuniformer.apis.inference.sources import Frame, Source
from mmuniformer.errors import UserError, refuse_existing
from mmuniformer.models.weights.files import part_of, sync, whole_file

JPEGS = ('.jpg', '.jpeg')
JPEG_QUALITY = 92


class WriteError(UserError):
    """A file of the results cannot be written."""


class Writer:
    """Writes results of sources, and drawings if ``vis``, as they come; a context manager.

    The JSON files and the table of labels appear at the end, whole, also when the run is
    interrupted: then they hold what was done until then. Those of an earlier run stay where nothing
    was done or a file could not be written; ``finished`` tells.

    Raises:
        UserError: A file is there already (without ``force``), or is one of the sources.
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
        planned = [self.results, self.table, self.listing, *map(self.mask, sources)]
        planned += map(self.drawing, sources if vis else ())
        inputs = {source.path.resolve() for source in sources}
        for path in planned:
            if path.resolve() in inputs:
                raise UserError(f'{path} is an input and would be replaced: choose another --out')
        refuse_existing(planned, force)

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
        with writing(self.results):
            self.stream = self.part.open('w', encoding='utf-8')
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

    def add(self, task: Task, frame: Frame, result: Any) -> None:
        """Write what a task predicted on a frame of a file."""
        height, width = frame.image.shape[:2]
        name = frame.source.path.as_posix()
        entry = {'id': frame.id, 'file_name': name, 'width': width, 'height': height}
        if frame.index is not None:
            entry['frame_id'] = frame.index
        if (mask := task.mask_file(result)) is not None:
            path = self.mask(frame.source, frame.index or 0)
            write_whole(path, mask)
            entry['mask'] = path.relative_to(self.folder).as_posix()
        if self.vis:
            path = self.drawing(frame.source)
            for index, image in frame.images():
                self.draw(path, index, frame.fps, task.draw(image, result))
            entry['vis'] = path.relative_to(self.folder).as_posix()
        lines = [json.dumps(record) for record in task.records(frame, result)]
        if lines:
            with writing(self.results):
                # One call, so that an interrupt leaves no half of a record.
                self.stream.write((',\n' if self.records else '[\n') + ',\n'.join(lines))
        self.records += len(lines)
        self.rows += task.rows(frame, result)
        self.images.append(entry)
        self.categories = task.categories

    def draw(self, path: Path, index: int | None, fps: float | None, drawing: np.ndarray) -> None:
        """Write a drawing, or add it to its video."""
        if index is None:
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in JPEGS else []
            return write_whole(path, cv2.imencode(path.suffix, drawing, options)[1].tobytes())
        if self.video is None or self.video.path != path:
            self.close_video()
            self.video = VideoFile(path, fps, drawing.shape[:2])
        self.video.write(index, drawing)

    def close_video(self) -> None:
        """Finish the video that is being written."""
        if self.video is not None:
            self.video.writer.release()
            with writing(self.video.path):
                os.replace(self.video.part, self.video.path)
            self.video = None


class VideoFile:
    """An MP4 that grows by frames; where some are missing, the one before is held."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        self.path = path
        self.frames, self.last = 0, None
        code = cv2.VideoWriter_fourcc(*'mp4v')
        with writing(path):
            self.part = part_of(path)
            self.writer = cv2.VideoWriter(str(self.part), code, fps, size[::-1])
        if not self.writer.isOpened():
            raise UserError(f'{path}: this OpenCV cannot write MP4 videos: use --no-vis')

    def write(self, index: int, frame: np.ndarray) -> None:
        """Add a frame at its place in time."""
        while self.frames < index:
            self.writer.write(frame if self.last is None else self.last)
            self.frames += 1
        self.writer.write(frame)
        self.frames, self.last = index + 1, frame


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


def write_whole(path: Path, data: bytes) -> None:
    """Write a file and the folders above it; an interrupt or a full disk leaves no half."""
    with writing(path), whole_file(path) as part:
        part.write_bytes(data)
