"""Image and video files, decoded as people see them."""

from __future__ import annotations

import io
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from mmuniformer.errors import InputError

IMAGES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
COUNTED = ('.avi', '.m4v', '.mov', '.mp4')
"""Videos that record how many frames they hold; for others the count is an estimate."""

FALLBACK_FPS = 25.0
MAX_BROKEN_RUN = 250
"""Frames in a row that cannot be decoded before the rest of a video is given up."""


def is_video(path: Path) -> bool:
    """Tell whether a file is taken for a video, by its suffix."""
    return path.suffix.lower() in VIDEOS


def check_file(path: Path) -> None:
    """Refuse what cannot be read to its end, such as a folder, a pipe or an empty file."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}') from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f'{path}: not a regular file')
    if not status.st_size:
        raise InputError(f'{path}: the file is empty')


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to BGR, ``(H, W, 3)`` uint8.

    The orientation noted by a camera (EXIF) is applied; gray becomes three equal channels;
    transparent parts become white; of more than 8 bits a channel, the 8 highest that the image
    uses are kept (so that 12-bit data in a 16-bit file does not turn black).

    Raises:
        InputError: The file is missing, empty, truncated or no image.
    """
    check_file(path)
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if is_deep(image, data):
                image = eight_bits(image, data)
            return as_array(image)
    except Exception as error:  # decoders raise whatever their bytes lead them to
        why = str(error).split(' <_io')[0] or type(error).__name__
        raise InputError(f'{path}: cannot be read as an image: {why}') from error


def as_array(image: Image.Image) -> np.ndarray:
    """Return an image of 8 bits a channel as BGR, upright and on white."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    return np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Tell whether a file holds more than 8 bits a channel; Pillow cuts color down silently."""
    if image.format == 'PNG':
        return data[24] > 8  # the header's bit depth
    if image.format == 'TIFF' and max(image.tag_v2.get(258, (8,))) > 8:  # BitsPerSample
        return True
    return image.mode[0] in 'IF'


def eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """Return a deep image with 8 bits a channel, its alpha and orientation kept."""
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if values is None or values.dtype not in (np.uint8, np.uint16):
        raise ValueError('its pixels are not integers of 8 or 16 bits: convert the file')
    bits = max(8, int(values.max()).bit_length())
    result = Image.fromarray((values >> (bits - 8)).astype(np.uint8)[..., ::-1])
    if 'A' in image.getbands():
        result.putalpha(image.getchannel('A'))
    tag = ExifTags.Base.Orientation
    result.getexif()[tag] = image.getexif().get(tag, 1)
    return result


class Video:
    """An open video: ``fps``, ``count`` (the number of frames that it claims) and its frames."""

    def __init__(self, path: Path):
        check_file(path)
        self.path = path
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise InputError(f'{path}: not a video that can be decoded')
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else FALLBACK_FPS
        self.count = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield index and BGR image of each frame; if some are missing, raise at the end."""
        index, run, corrupt = 0, 0, []
        while run < MAX_BROKEN_RUN:
            ok, image = self.capture.read()
            if ok:
                run = 0
                yield index, image
            elif index < self.count:
                run += 1
                corrupt.append(index)
            else:
                break
            index += 1
        self.capture.release()
        if len(corrupt) == index:
            raise InputError(f'{self.path}: the video holds no frame that can be decoded')
        missing = len(corrupt) + max(0, self.count - index)
        if self.path.suffix.lower() not in COUNTED:  # it may well end before the estimate
            missing = len(corrupt) - run
        if missing:
            raise InputError(
                f'{self.path}: {missing} of {self.count} frames are corrupt, from frame '
                f'{corrupt[0]} on'
            )
