"""Image and video files, decoded as people see them."""

from __future__ import annotations

import io
import re
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

MAX_PIXELS = 2**28 // 3
"""Of an image or video, by default: 256 MiB in RGB, where Pillow warns of decompression bombs."""
BYTES_PER_PIXEL = 8
"""Of the largest image file, at ``max_pixels``: four channels of 16 bits."""
MAX_SCANS = 500
"""Of a JPEG; each goes over all pixels. Encoders write about ten."""
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
"""What ends the pixels of a JPEG's scan."""
PLAYLISTS = (b'ffconcat', b'#EXTM3U', b'v=0', b'<')
"""How files begin that FFmpeg takes for lists of other files and addresses."""

FALLBACK_FPS, LOWEST_FPS = 25.0, 0.1
MAX_BROKEN_RUN = 250
"""Frames in a row that cannot be decoded before the rest of a video is given up."""


def is_video(path: Path) -> bool:
    """Tell whether a file is taken for a video, by its suffix."""
    return path.suffix.lower() in VIDEOS


KINDS = {
    stat.S_IFDIR: 'a folder', stat.S_IFIFO: 'a pipe', stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device', stat.S_IFBLK: 'a device',
}  # fmt: skip


def check_file(path: Path) -> None:
    """Refuse what cannot be read to its end, such as a folder, a pipe or an empty file."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}') from error
    if kind := KINDS.get(stat.S_IFMT(status.st_mode)):
        raise InputError(f'{path}: {kind}, not a regular file')
    if not status.st_size:
        raise InputError(f'{path}: the file is empty')


def check_pixels(what: object, height: int, width: int, max_pixels: int) -> None:
    """Refuse an image that is larger than allowed, or has no pixels."""
    if not height * width:
        raise InputError(f'{what}: an image of {height} x {width} (H x W) has no pixels')
    if height * width > max_pixels:
        raise InputError(
            f'{what}: {height} x {width} (H x W) are more than {max_pixels:,} pixels: if this is '
            'sound, raise --max-pixels'
        )


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file to BGR, ``(H, W, 3)`` uint8.

    The orientation noted by a camera (EXIF) is applied; gray becomes three equal channels;
    transparent parts become white; of more than 8 bits a channel, the 8 highest that the image
    uses are kept (so that 12-bit data in a 16-bit file does not turn black).

    Pillow's own limit, which is one of the process, is raised with ``max_pixels``.

    Raises:
        InputError: The file is missing, empty, truncated, too large or no image.
    """
    check_file(path)
    if max_pixels > max(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or max_pixels):
        Image.MAX_IMAGE_PIXELS = max_pixels
    if (size := path.stat().st_size) > BYTES_PER_PIXEL * max_pixels:
        raise InputError(
            f'{path}: {size:,} bytes are more than {BYTES_PER_PIXEL} for each of {max_pixels:,} '
            'pixels: if this is sound, raise --max-pixels'
        )
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            check_pixels(path, image.height, image.width, max_pixels)
            check_decoding(image, data)
            image.load()
            check_pixels(path, image.height, image.width, max_pixels)  # headers lie
            if is_deep(image, data):
                image = eight_bits(image, data)
            return as_array(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f'{path}: more than {max_pixels:,} pixels: if this is sound, raise --max-pixels'
        ) from error
    except Exception as error:  # decoders raise whatever their bytes lead them to
        why = str(error).split(' <_io')[0] or type(error).__name__
        raise InputError(f'{path}: cannot be read as an image: {why}') from error


def check_decoding(image: Image.Image, data: bytes) -> None:
    """Refuse a file whose pixels are a program, or are gone over too often."""
    if image.format == 'EPS':
        raise ValueError('PostScript is a program, which is not run: convert the file')
    if image.format in ('JPEG', 'MPO') and data.count(b'\xff\xda') > MAX_SCANS:
        at = scans = 0  # metadata, or a video behind the image, have the same bytes
        while (marker := MARKER.search(data, at)) and marker[0] != b'\xff\xd9':
            scans += marker[0] == b'\xff\xda'
            at = marker.end()
            if marker[0] != b'\xff\xd8':  # all but the start of the image have a length
                at += int.from_bytes(data[at : at + 2], 'big')
        if scans > MAX_SCANS:
            raise ValueError(f'it has {scans} scans, more than {MAX_SCANS}')


def as_array(image: Image.Image) -> np.ndarray:
    """Return an image of 8 bits a channel as BGR, upright and on white."""
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert('RGBA')
        image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    if image.mode != 'RGB':
        image = image.convert('RGB')
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


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

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS):
        check_file(path)
        with path.open('rb') as file:
            if file.read(64).lstrip(b'\xef\xbb\xbf \t\r\n').startswith(PLAYLISTS):
                raise InputError(f'{path}: a list of other files, not a video')
        self.path = path
        self.capture = cv2.VideoCapture(str(path))
        if not self.capture.isOpened():
            raise InputError(f'{path}: not a video that can be decoded')
        sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        check_pixels(path, *(max(1, int(self.capture.get(s))) for s in sides), max_pixels)
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if LOWEST_FPS <= fps <= 1000 else FALLBACK_FPS
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
