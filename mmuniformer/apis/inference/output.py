"""What a run writes: drawn pictures and videos, mask files, COCO records and the list of pictures.

::

    OUT/predictions.json   COCO results
    OUT/images.json        which picture has which id, and the categories: a COCO data set
    OUT/pictures/          drawings, videos for videos
    OUT/masks/             segmentation: a PNG a picture, a folder of PNGs a video
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import cv2
import numpy as np

from mmuniformer.apis.inference.inputs import FALLBACK_FPS, Shot, Source, UnreadableError, Video
from mmuniformer.errors import UserError

JPEGS = ('.jpg', '.jpeg')
JPEG_QUALITY = 92


class Task(Protocol):
    """What ``DetTask``, ``SegTask`` and ``PoseTask`` have in common.

    ``categories`` are COCO's; ``unit`` names what is counted.
    """

    categories: list[dict[str, Any]]
    unit: str

    def __call__(self, shots: Sequence[tuple[Shot, Any]]) -> list[Any]:
        """Predict on pictures, given with their ids: one result each."""

    def records(self, result: Any, image_id: Any) -> list[dict[str, Any]]:
        """Return a result as COCO records."""

    def draw(self, shot: Shot, result: Any) -> np.ndarray:
        """Draw a result over its picture."""


class Output:
    """The files of a run.

    Args:
        folder: Where they go.
        sources: What will be predicted on.
        pictures: Whether drawings are written.
        masks: Whether mask files are written.
        force: Replace files of an earlier run.

    Raises:
        UserError: A file is there already, or is one of the sources.
    """

    def __init__(
        self,
        folder: Path,
        sources: Sequence[Source],
        pictures: bool = True,
        masks: bool = False,
        force: bool = False,
    ):
        self.folder = folder
        self.pictures = pictures
        self.masks = masks
        self.results = folder / 'predictions.json'
        self.listing = folder / 'images.json'
        self.images: list[dict[str, Any]] = []
        self.written = 0
        self.video: VideoFile | None = None
        self.check(sources, force)

    def check(self, sources: Sequence[Source], force: bool) -> None:
        """Refuse to replace files, sources above all."""
        planned = [self.results, self.listing]
        for source in sources:
            planned += [self.drawing(source)] * self.pictures + [self.mask(source)] * self.masks
        inputs = {source.path.resolve() for source in sources}
        for path in planned:
            if path.resolve() in inputs:
                raise UserError(f'{path} is an input and would be replaced: choose another --out')
        present = [path for path in planned if path.exists()]
        if present and not force:
            more = f' and {len(present) - 1} more' if len(present) > 1 else ''
            raise UserError(
                f'{present[0]}{more} exist: choose another --out, or replace them with --force'
            )

    def drawing(self, source: Source) -> Path:
        """Return where a source's drawing goes."""
        suffix = source.path.suffix.lower()
        kind = '.mp4' if source.is_video else suffix if suffix in JPEGS else '.png'
        return self.folder / 'pictures' / (source.name + kind)

    def mask(self, source: Source, frame: int | None = None) -> Path:
        """Return where the mask of a picture or frame goes; a video's is a folder."""
        path = self.folder / 'masks' / source.name
        if not source.is_video:
            return path.with_name(path.name + '.png')
        return path if frame is None else path / f'{frame:06d}.png'

    @contextmanager
    def opened(self, categories: list[dict[str, Any]]) -> Iterator[Output]:
        """Write inside; the files are whole at the end, also when the run is broken off.

        Nothing is left where no picture was predicted on.

        Raises:
            UserError: Something can't be written.
        """
        part = self.results.with_name('.predictions.part')
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with part.open('w', encoding='utf-8') as self.file:
                    self.file.write('[')
                    try:
                        yield self
                    finally:
                        self.file.write('\n]\n')
                        self.close_video()
            finally:
                if self.images:
                    os.replace(part, self.results)
                    content = {'images': self.images, 'categories': categories}
                    self.listing.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
                else:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f'{self.folder} could not be written to: {error}') from error

    file: IO[str]

    def add(self, shot: Shot, number: Any, task: Task, result: Any) -> None:
        """Write what was predicted on a picture."""
        for record in task.records(result, number):
            self.file.write(',\n' if self.written else '\n')
            json.dump(record, self.file)
            self.written += 1
        height, width = shot.image.shape[:2]
        entry = {
            'id': number,
            'file_name': shot.source.path.as_posix(),
            'width': width,
            'height': height,
        }
        if shot.frame is not None:
            entry['frame_id'] = shot.frame
        if self.masks:
            path = self.mask(shot.source, shot.frame)
            write_bytes(path, task.mask_file(result))
            entry['mask'] = path.relative_to(self.folder).as_posix()
        if self.pictures:
            self.write_drawing(shot, task.draw(shot, result))
            entry['picture'] = self.drawing(shot.source).relative_to(self.folder).as_posix()
        self.images.append(entry)

    def write_drawing(self, shot: Shot, drawing: np.ndarray) -> None:
        """Write a drawing, or add it to its video."""
        path = self.drawing(shot.source)
        if shot.frame is None:
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix in JPEGS else []
            ok, data = cv2.imencode(path.suffix, drawing, options)
            if not ok:
                raise UserError(f'{path}: a picture of {drawing.shape} can not be encoded')
            return write_bytes(path, data.tobytes())
        if self.video is None or self.video.path != path:
            self.close_video()
            self.video = VideoFile(path, shot.source.path, drawing.shape[:2])
        self.video.write(shot.frame, drawing)

    def close_video(self) -> None:
        """Finish the video that is being written."""
        if self.video is not None:
            self.video.close()
            self.video = None


class VideoFile:
    """An MP4 that grows by frames; where some are missing, the one before is held.

    Raises:
        UserError: This build of OpenCV can't write it.
    """

    def __init__(self, path: Path, source: Path, size: tuple[int, int]):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fps = Video(source).fps
        except UnreadableError:
            fps = FALLBACK_FPS
        self.path = path
        self.frames = 0
        self.last: np.ndarray | None = None
        code = cv2.VideoWriter_fourcc(*'mp4v')
        self.writer = cv2.VideoWriter(str(path), code, fps, (size[1], size[0]))
        if not self.writer.isOpened():
            raise UserError(f'{path}: this OpenCV can not write MP4 videos: use --no-pictures')

    def write(self, index: int, frame: np.ndarray) -> None:
        """Add a frame at its place in time."""
        while self.frames < index:
            self.writer.write(frame if self.last is None else self.last)
            self.frames += 1
        self.writer.write(frame)
        self.frames, self.last = index + 1, frame

    def close(self) -> None:
        """Finish the file."""
        self.writer.release()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
