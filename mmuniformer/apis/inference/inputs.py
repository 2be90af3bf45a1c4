"""What to predict on: pictures and videos, found, named and decoded as people see them."""

from __future__ import annotations

import glob
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

PICTURES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
COUNTED = ('.avi', '.m4v', '.mov', '.mp4')
"""Videos that record how many frames they hold; for others the count is an estimate."""

FALLBACK_FPS = 25.0
MAX_BROKEN_RUN = 250
"""Frames in a row that can not be decoded before the rest of a video is given up."""


class UnreadableError(Exception):
    """Why an input can not be decoded."""


@dataclass(frozen=True)
class Problem:
    """An input, or a part of one, that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A file to predict on.

    ``name`` is that of its outputs, without suffix, and no other source of the run has it.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether the file is taken for a video, by its suffix."""
        return self.path.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class Shot:
    """One picture to predict on: a file's, or a frame of a video.

    ``image`` is BGR, ``(H, W, 3)`` uint8; ``frame`` counts from 0 and is None for a file.
    """

    source: Source
    image: np.ndarray
    frame: int | None = None

    def __str__(self) -> str:
        return f'{self.source.path}' + (f', frame {self.frame}' if self.frame is not None else '')


def find_sources(inputs: Iterable[str]) -> tuple[list[Source], list[Problem]]:
    """Expand files, folders and glob patterns into sources, each file once, in a stable order.

    Of a folder the pictures and videos directly in it are taken.
    """
    paths: dict[Path, Path] = {}
    problems = []
    for text in inputs:
        try:
            found = expand(text)
        except UnreadableError as error:
            problems.append(Problem(text, str(error)))
            continue
        for path in found:
            paths.setdefault(path.resolve(), path)
    return name_sources(paths.values()), problems


def expand(text: str) -> list[Path]:
    """Return the files that one input stands for.

    Raises:
        UnreadableError: There is none.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return listing(path)
    if path.exists():
        return [path]
    if glob.has_magic(text):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        if files:
            return files
        raise UnreadableError('the pattern matches no file')
    raise UnreadableError('there is no such file, folder or pattern')


def listing(folder: Path) -> list[Path]:
    """Return the pictures and videos directly in a folder.

    Raises:
        UnreadableError: There is none, or the folder can not be read.
    """
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith('.'))
    except OSError as error:
        raise UnreadableError(error.strerror) from error
    known = [path for path in files if path.suffix.lower() in PICTURES + VIDEOS and path.is_file()]
    if not known:
        raise UnreadableError('the folder holds no picture and no video')
    return known


def name_sources(paths: Iterable[Path]) -> list[Source]:
    """Give each file a name of its own: its stem, from the second on with a number."""
    paths = list(paths)
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


def read_picture(path: Path) -> np.ndarray:
    """Decode a picture file to BGR, ``(H, W, 3)`` uint8.

    Rotation and mirroring noted by a camera (EXIF) are applied; grey becomes three equal channels;
    transparent parts become white; of more than 8 bits a channel, the 8 highest that the picture
    uses are kept (so that 12-bit data in a 16-bit file does not turn black).

    Raises:
        UnreadableError: The file is missing, empty, truncated or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror) from error
    if not data:
        raise UnreadableError('the file is empty')
    try:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()
            return decoded(picture, data)
    except UnreadableError:
        raise
    except Exception as error:  # decoders raise whatever their bytes lead them to
        message = str(error).replace(repr(data), '').split(' <_io')[0]
        raise UnreadableError(f'no picture that can be decoded: {message}') from error


def decoded(picture: Image.Image, data: bytes) -> np.ndarray:
    """Return a loaded picture, whose file held ``data``, as ``read_picture`` does."""
    if is_deep(picture, data):
        picture = eight_bits(picture, data)
    picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert('RGBA')
        paper = Image.new('RGBA', picture.size, 'white')
        picture = Image.alpha_composite(paper, picture)
    return np.ascontiguousarray(np.asarray(picture.convert('RGB'))[..., ::-1])


def is_deep(picture: Image.Image, data: bytes) -> bool:
    """Tell whether a file holds more than 8 bits a channel; Pillow cuts colour down silently."""
    if picture.mode[0] in 'IF':
        return True
    if picture.format == 'PNG':
        return data[24] > 8  # the header's bit depth
    if picture.format == 'TIFF':
        return max(picture.tag_v2.get(258, (8,))) > 8  # BitsPerSample
    return False


def eight_bits(picture: Image.Image, data: bytes) -> Image.Image:
    """Return a deep picture with 8 bits a channel, its alpha and orientation kept.

    Raises:
        UnreadableError: The pixels are not unsigned integers of up to 16 bits.
    """
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if values is None or values.dtype not in (np.uint8, np.uint16):
        raise UnreadableError('pixels that are no integers of 8 or 16 bits: convert it to these')
    bits = max(8, int(values.max()).bit_length())
    result = Image.fromarray((values >> (bits - 8)).astype(np.uint8)[..., ::-1])
    if 'A' in picture.getbands():
        result.putalpha(picture.getchannel('A'))
    tag = ExifTags.Base.Orientation
    result.getexif()[tag] = picture.getexif().get(tag, 1)
    return result


class Video:
    """A video's frames in order.

    Raises:
        UnreadableError: The file is missing, empty or no video.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise UnreadableError('there is no such file')
        if not path.stat().st_size:
            raise UnreadableError('the file is empty')
        self.path = path
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise UnreadableError('no video that can be decoded')
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else FALLBACK_FPS
        self.count = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield index and BGR picture of each frame that can be decoded.

        Raises:
            UnreadableError: At the end, if frames were missing: says which.
        """
        index, gaps, gap = 0, [], 0
        while True:
            ok, image = self.capture.read()
            if ok:
                if gap:
                    gaps.append((index - gap, index - 1))
                gap = 0
                yield index, image
            elif index >= self.count or gap >= MAX_BROKEN_RUN:
                break
            else:
                gap += 1
            index += 1
        self.capture.release()
        if index == gap:
            raise UnreadableError('the video holds no frame that can be decoded')
        if gap and self.path.suffix.lower() in COUNTED:
            gaps.append((index - gap, self.count - 1))
        if gaps:
            texts = (str(a) if a == b else f'{a} to {b}' for a, b in gaps)
            raise UnreadableError(f'corrupt frames left out: {", ".join(texts)} of {self.count}')


def count_shots(sources: Iterable[Source]) -> int:
    """Return how many shots there will be; for videos, what they say of themselves."""
    total = 0
    for source in sources:
        try:
            total += Video(source.path).count if source.is_video else 1
        except UnreadableError:
            total += 1
    return total


def read_shots(sources: Iterable[Source], problems: list[Problem]) -> Iterator[Shot]:
    """Decode the sources one by one; what can not be decoded is added to ``problems``."""
    for source in sources:
        try:
            if source.is_video:
                for index, image in Video(source.path).frames():
                    yield Shot(source, image, index)
            else:
                yield Shot(source, read_picture(source.path))
        except UnreadableError as error:
            problems.append(Problem(str(source.path), str(error)))
