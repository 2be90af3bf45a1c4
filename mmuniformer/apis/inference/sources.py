"""What to predict on: files, folders, glob patterns and videos, one frame after the other."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmuniformer.apis.inference.coco import DataSet, ImageIds
from mmuniformer.apis.inference.decode import (
    IMAGES,
    VIDEOS,
    Video,
    as_array,
    is_video,
    read_image,
)
from mmuniformer.errors import InputError


class Source(NamedTuple):
    """A file to predict on, and the name of its outputs, which no other source of the run has."""

    path: Path
    name: str


@dataclass(frozen=True)
class Frame:
    """An image to predict on, BGR ``(H, W, 3)`` uint8: a file's, a frame of a video, or an array.

    An array has no ``source``; ``id`` is for COCO records. ``index`` counts a video's frames from
    0.
    """

    image: np.ndarray
    id: Any = 0
    source: Source | None = None
    index: int | None = None
    fps: float | None = None

    def images(self) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yield index and image of what is drawn on."""
        yield self.index, self.image

    def __str__(self) -> str:
        name = str(self.source.path) if self.source else f'image {self.id}'
        return name if self.index is None else f'{name}, frame {self.index}'


class Frames:
    """The frames of files, folders (the images and videos directly in them) and glob patterns.

    Each file is taken once, in a stable order, and decoded when its turn comes. What cannot be used
    is skipped: ``skipped`` says what and why. ``read`` of ``total`` frames are past; a video counts
    as one until it is opened and says how many it holds. Frames take their ids from a COCO data
    set, ``data_set``, that holds the images.

    Example:
        >>> frames = Frames(['no-such.jpg'])
        >>> list(frames), frames.skipped
        ([], ['no-such.jpg: no such file, folder or pattern'])
    """

    def __init__(self, inputs: Iterable[str | Path], data_set: DataSet = None):
        self.skipped: list[str] = []
        paths: dict[Path, Path] = {}
        for text in map(str, inputs):
            try:
                for path in self.expand(text):
                    paths.setdefault(path.resolve(), path)
            except InputError as error:
                self.skipped.append(str(error))
            except OSError as error:
                self.skipped.append(f'{text}: {error.strerror}')
        self.sources = name_sources(list(paths.values()))
        self.ids = ImageIds(list(paths.values()), data_set)
        self.total = len(self.sources)
        self.read = 0

    def __iter__(self) -> Iterator[Frame]:
        for source in self.sources:
            self.read += 1
            try:
                yield from self.frames(source)
            except InputError as error:
                self.skipped.append(str(error))

    def expand(self, text: str) -> list[Path]:
        """Return the files that one input stands for."""
        return expand(text)

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield the image of a file, or the frames of a video."""
        if is_video(source.path):
            yield from self.video(source)
        else:
            yield Frame(read_image(source.path), self.ids(source.path), source)

    def video(self, source: Source) -> Iterator[Frame]:
        """Yield the frames of a video; those that the data set lacks are skipped together."""
        video, start = Video(source.path), self.read
        self.total += max(video.count, 1) - 1
        lacking = 0
        try:
            for index, image in video.frames():
                self.read = start + index
                try:
                    number = self.ids(source.path, index)
                except InputError:
                    lacking += 1
                else:
                    yield Frame(image, number, source, index, video.fps)
        finally:  # frames() ends in an error where frames are corrupt
            if lacking:
                self.skipped.append(f'{source.path}: {lacking} frames not in the annotation file')


def frames_of(inputs: Any) -> Iterator[Frame]:
    """Yield what is given as frames, in its order; their ids count from 0.

    Args:
        inputs: A path (an image, a video, a folder of these, or a pattern), an array (BGR or gray,
            uint8), a PIL image, or several of these.

    Raises:
        InputError: When the turn of one comes that cannot be used.
    """
    batch = isinstance(inputs, np.ndarray) and inputs.ndim == 4
    alone = isinstance(inputs, (str, Path, np.ndarray, Image.Image)) and not batch
    number = itertools.count()
    for each in [inputs] if alone else inputs:
        if not isinstance(each, (str, Path)):
            yield Frame(checked_image(each), next(number))
            continue
        for path in expand(str(each)):
            source = Source(path, path.stem)
            if not is_video(path):
                yield Frame(read_image(path), next(number), source)
                continue
            video = Video(path)
            for index, image in video.frames():
                yield Frame(image, next(number), source, index, video.fps)


def checked_image(image: Any) -> np.ndarray:
    """Return an image in memory as BGR, ``(H, W, 3)`` uint8.

    Raises:
        InputError: It is nothing of the kind.
    """
    if isinstance(image, Image.Image):
        if image.mode[0] in 'IF':
            raise InputError(
                f'a PIL image of mode {image.mode}: scale it to 8 bits a channel, or give the path'
            )
        return as_array(image)
    if not isinstance(image, np.ndarray):
        raise InputError(f'a {type(image).__name__} is no image: give paths, arrays or PIL images')
    gray = image.ndim == 2 or image.shape[2:] == (1,)
    if image.dtype != np.uint8 or not gray and image.shape[2:] != (3,):
        raise InputError(
            f'an array of {image.dtype}, {image.shape}: images are BGR, (H, W, 3), or gray, '
            '(H, W), of uint8'
        )
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if gray else image


def expand(text: str) -> list[Path]:
    """Return the files that one input stands for: of a folder, images and videos directly in it."""
    path = Path(text).expanduser()
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith('.')]
        files = [f for f in files if f.suffix.lower() in IMAGES + VIDEOS and f.is_file()]
        if not files:
            raise InputError(f'{path}: the folder holds no image and no video')
        return files
    if path.exists():
        return [path]
    if not glob.has_magic(text):
        raise InputError(f'{text}: no such file, folder or pattern')
    matches = map(Path, sorted(glob.glob(str(path), recursive=True)))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise InputError(f'{text}: the pattern matches no file')
    return files


def name_sources(paths: list[Path]) -> list[Source]:
    """Give each file a name of its own: its stem, from the second on with a number."""
    # Names that some file has by right are not given to another: a_2.jpg next to two a.jpg.
    stems = {path.stem.lower() for path in paths}
    taken: set[str] = set()
    sources = []
    for path in paths:
        name, number = path.stem, 1
        while name.lower() in taken or (number > 1 and name.lower() in stems):
            number += 1
            name = f'{path.stem}_{number}'
        taken.add(name.lower())
        sources.append(Source(path, name))
    return sources
