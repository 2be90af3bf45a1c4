"""What to predict on: files, folders, glob patterns and videos, one frame after the other."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmuniformer.apis.inference.coco import DataSet, ImageIds
from mmuniformer.apis.inference.decode import (
    IMAGES,
    MAX_PIXELS,
    VIDEOS,
    Video,
    as_array,
    check_pixels,
    is_video,
    read_image,
)
from mmuniformer.errors import InputError

LONGEST_NAME = 230
"""Bytes of the name of an output, without number and suffix: file systems take 255."""


class Source(NamedTuple):
    """A file to predict on, and the name of its outputs, which no other source of the run has."""

    path: Path
    name: str


@dataclass(frozen=True)
class Frame:
    """An image to predict on, BGR ``(H, W, 3)`` uint8: a file's, a frame of a video, or an array.

    An array has no ``source``; ``id`` is for COCO records. ``index`` counts a video's frames from
    0. ``inputs`` are what the test pipeline made of it, if it ran.
    """

    image: np.ndarray
    id: Any = 0
    source: Source | None = None
    index: int | None = None
    fps: float | None = None
    inputs: Any = field(default=None, kw_only=True)

    def images(self) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yield index and image of what is drawn on."""
        yield self.index, self.image

    def __str__(self) -> str:
        name = str(self.source.path) if self.source else f'image {self.id}'
        return name if self.index is None else f'{name}, frame {self.index}'


class Frames:
    """The frames of files, folders (the images and videos directly in them) and glob patterns.

    Each file is taken once, in a stable order, and decoded when its turn comes. What cannot be used
    is skipped: ``skipped`` says what and why; so is what has more than ``max_pixels``. ``read`` of
    ``total`` frames are past; a video counts as one until it is opened and says how many it holds.
    Frames take their ids from a COCO data set, ``data_set``, that holds the images.

    Example:
        >>> frames = Frames(['no-such.jpg'])
        >>> list(frames), frames.skipped
        ([], ['no-such.jpg: no such file, folder or pattern'])
    """

    def __init__(
        self,
        inputs: Iterable[str | Path],
        data_set: DataSet = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.skipped: list[str] = []
        self.max_pixels = max_pixels
        paths: dict[str, Path] = {}
        for text in map(str, inputs):
            try:
                for path in self.expand(text):
                    paths.setdefault(os.path.realpath(path), path)
            except InputError as error:
                self.skipped.append(str(error))
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
            image = read_image(source.path, self.max_pixels)
            yield Frame(image, self.ids(source.path), source)

    def video(self, source: Source) -> Iterator[Frame]:
        """Yield the frames of a video; those that the data set lacks are skipped together."""
        video, start = Video(source.path, self.max_pixels), self.read
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


def frames_of(inputs: Any, max_pixels: int = MAX_PIXELS) -> Iterator[Frame | InputError]:
    """Yield what is given as frames, in its order; their ids count from 0.

    In place of what cannot be used comes the error that says so; of a video, after its frames.

    Args:
        inputs: A path (an image, a video, a folder of these, or a pattern), an array (BGR or gray,
            uint8), a PIL image, or several of these.
        max_pixels: Of the largest image that is allowed.
    """
    batch = isinstance(inputs, np.ndarray) and inputs.ndim == 4
    alone = isinstance(inputs, (str, Path, np.ndarray, Image.Image)) and not batch
    number = itertools.count()

    def opened(path: Path) -> Iterator[Frame]:
        source = Source(path, path.stem)
        if is_video(path):
            video = Video(path, max_pixels)
            for index, image in video.frames():
                yield Frame(image, next(number), source, index, video.fps)
        else:
            index = next(number)
            yield Frame(read_image(path, max_pixels), index, source)

    def found(each: Any) -> Iterator[Frame | InputError]:
        if isinstance(each, (str, Path)):
            try:
                paths = expand(str(each))
            except InputError:
                next(number)
                raise
            yield from in_turn(paths, opened)
            return
        index = next(number)
        try:
            image = checked_image(each, max_pixels)
        except InputError as error:
            raise InputError(f'image {index}: {error}') from error
        yield Frame(image, index)

    return in_turn([inputs] if alone or not isinstance(inputs, Iterable) else inputs, found)


def in_turn(
    items: Iterable[Any], opened: Callable[[Any], Iterator[Frame | InputError]]
) -> Iterator[Frame | InputError]:
    """Yield the frames of each item, and the error in place of what cannot be used."""
    for item in items:
        try:
            yield from opened(item)
        except InputError as error:
            yield error


def checked_image(image: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return an image in memory as BGR, ``(H, W, 3)`` uint8.

    Raises:
        InputError: It is nothing of the kind, or too large.
    """
    if isinstance(image, Image.Image):
        check_pixels('a PIL image', image.height, image.width, max_pixels)
        if image.mode[0] in 'IF':
            raise InputError(
                f'a PIL image of mode {image.mode}: scale it to 8 bits a channel, or give the path'
            )
        try:
            return as_array(image)
        except Exception as error:  # of a file that is read only now
            raise InputError(f'a PIL image that cannot be read: {error}') from error
    if not isinstance(image, np.ndarray):
        raise InputError(f'a {type(image).__name__} is no image: give paths, arrays or PIL images')
    gray = image.ndim == 2 or image.shape[2:] == (1,)
    if image.dtype != np.uint8 or not gray and image.shape[2:] != (3,):
        raise InputError(
            f'an array of {image.dtype}, {image.shape}: images are BGR, (H, W, 3), or gray, '
            '(H, W), of uint8'
        )
    check_pixels('an array', *image.shape[:2], max_pixels)
    return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2) if gray else image


def expand(text: str) -> list[Path]:
    """Return the files that one input stands for: of a folder, images and videos directly in it.

    What is neither a file nor a folder, such as a pipe, is among them, to be refused by its name.

    Raises:
        InputError: There are none.
    """
    path = Path(os.path.expanduser(text))
    try:
        if path.is_dir() and text:
            files = [file for file in sorted(path.iterdir()) if not file.name.startswith('.')]
            files = [f for f in files if f.suffix.lower() in IMAGES + VIDEOS and not f.is_dir()]
            if not files:
                raise InputError(f'{path}: the folder holds no image and no video')
            return files
        if os.path.lexists(path) and text:
            return [path]
        if not glob.has_magic(text):
            raise InputError(f'{text}: no such file, folder or pattern')
        files = [match for match in sorted(matches(path)) if not match.is_dir()]
    except OSError as error:
        raise InputError(f'{text}: {error.strerror}') from error
    if not files:
        raise InputError(f'{text}: the pattern matches no file')
    return files


def matches(pattern: Path) -> set[Path]:
    """Return what a pattern matches. ``**`` stands for any folders, each taken once.

    ``glob`` follows links without an end where they form loops.
    """
    if '**' not in pattern.parts:
        return set(map(Path, glob.glob(str(pattern))))
    place = pattern.parts.index('**')
    rest = pattern.parts[place + 1 :] or ('*',)
    found: set[Path] = set()
    for top in glob.glob(str(Path(*pattern.parts[:place]))):
        seen = set()
        for folder, names, _ in os.walk(top, followlinks=True):
            new = (real := os.path.realpath(folder)) not in seen
            seen.add(real)
            names[:] = [name for name in names if new and not name.startswith('.')]
            if new:
                found |= matches(Path(glob.escape(folder), *rest))
    return found


def name_sources(paths: list[Path]) -> list[Source]:
    """Give each file a name of its own: its stem, from the second on with a number."""
    # Names that some file has by right are not given to another: a_2.jpg next to two a.jpg.
    stems = {path.stem.lower() for path in paths}
    taken: set[str] = set()
    sources = []
    for path in paths:
        stem, number = path.stem, 1
        if len(code := os.fsencode(stem)) > LONGEST_NAME:
            stem = code[:LONGEST_NAME].decode(errors='ignore')
        name = stem
        while name.lower() in taken or (number > 1 and name.lower() in stems):
            number += 1
            name = f'{stem}_{number}'
        taken.add(name.lower())
        sources.append(Source(path, name))
    return sources
