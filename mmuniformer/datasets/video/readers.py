"""Frames of video files by the reader that is installed, and of folders of images."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from mmuniformer.errors import InputError, UserError

Frames = dict[int, np.ndarray]
"""RGB frames ``(H, W, 3)`` by their numbers from 0."""
TAIL = 0.1
"""Part of a video's claimed length by which it may be shorter, as claims are estimates."""
WAY_OUT = 'encode it anew (ffmpeg -i FILE NEW.mp4) or leave it out of the list'


class Reader:
    """An open video: ``len()`` is the number of its frames."""

    def __init__(self, path: str):
        self.path = path

    def __len__(self) -> int:
        raise NotImplementedError

    def decode(self, wanted: list[int]) -> Frames:
        """Return frames by ascending numbers, as far as they can be decoded."""
        raise NotImplementedError

    def frames(self, numbers: Iterable[int]) -> list[np.ndarray]:
        """Return frames, RGB, in the order of their numbers.

        Raises:
            InputError: One cannot be decoded. Close to the end the last one that can stands in for
                it, with a line in the log.
        """
        numbers = [int(number) for number in numbers]
        wanted = sorted(set(numbers))
        found = self.decode(wanted)
        missing = [number for number in wanted if number not in found]
        if missing:
            if not found or missing[0] < (1 - TAIL) * len(self):
                raise InputError(
                    f'{self.path}: frame {missing[0]} of {len(self)} cannot be decoded: {WAY_OUT}'
                )
            last = max(found)
            print_log(
                f'{self.path}: the video claims {len(self)} frames, and frame {missing[0]} cannot '
                f'be decoded: frame {last} stands in for it',
                'current',
            )
            found |= {number: found[last] for number in missing}
        return [found[number] for number in numbers]


class OpenCVReader(Reader):
    """Read by OpenCV, frame after frame from the start: its jumps are inexact."""

    def __init__(self, path: str):
        super().__init__(path)
        self.capture = cv2.VideoCapture(path)
        self.length = int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if self.capture.isOpened() and self.length < 1:  # the format records no length
            self.length = sum(1 for _ in iter(self.capture.grab, False))
            self.capture = cv2.VideoCapture(path)

    def __len__(self) -> int:
        return max(self.length, 0)

    def decode(self, wanted: list[int]) -> Frames:
        """Return frames by ascending numbers, as far as they can be decoded."""
        found, asked = {}, set(wanted)
        for number in range(wanted[-1] + 1):
            if self.capture.grab() and number in asked:
                done, image = self.capture.retrieve()
                if done:
                    found[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return found


class DecordReader(Reader):
    """Read by decord, which jumps to frames exactly."""

    def __init__(self, path: str):
        import decord

        super().__init__(path)
        self.video = decord.VideoReader(path, num_threads=1)

    def __len__(self) -> int:
        return len(self.video)

    def decode(self, wanted: list[int]) -> Frames:
        """Return frames by ascending numbers."""
        return dict(zip(wanted, self.video.get_batch(wanted).asnumpy(), strict=True))


class PyAVReader(Reader):
    """Read by PyAV, frame after frame from the start."""

    def __init__(self, path: str):
        import av

        super().__init__(path)
        self.container = av.open(path)
        stream = self.container.streams.video[0]
        self.length = stream.frames or sum(1 for _ in self.container.decode(stream))
        self.container.seek(0)

    def __len__(self) -> int:
        return self.length

    def decode(self, wanted: list[int]) -> Frames:
        """Return frames by ascending numbers, as far as they can be decoded."""
        found, asked = {}, set(wanted)
        for number, frame in enumerate(self.container.decode(video=0)):
            if number in asked:
                found[number] = frame.to_ndarray(format='rgb24')
            if number >= wanted[-1]:
                break
        return found


class FolderReader(Reader):
    """Frames that lie in a folder as images, numbered from ``first`` on."""

    def __init__(self, path: str, template: str, length: int, first: int = 1):
        super().__init__(path)
        self.template, self.length, self.first = template, length, first

    def __len__(self) -> int:
        return self.length

    def frames(self, numbers: Iterable[int]) -> list[np.ndarray]:
        """Return frames, RGB, in the order of their numbers.

        Raises:
            InputError: The file of one is missing or no image.
        """
        numbers = [int(number) for number in numbers]
        found = {number: self.image(number) for number in sorted(set(numbers))}
        return [found[number] for number in numbers]

    def image(self, number: int) -> np.ndarray:
        """Return one frame."""
        file = Path(self.path, self.template.format(number + self.first))
        if not file.is_file():
            raise InputError(
                f'{file} does not exist, and the list gives the folder {self.length} frames: '
                'correct the list, or set filename_tmpl to how the files are named'
            )
        image = cv2.imread(str(file))
        if image is None:
            raise InputError(f'{file} cannot be decoded: replace it or leave its folder out')
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


READERS: dict[str, Callable[[str], Reader]] = {
    'decord': DecordReader,
    'av': PyAVReader,
    'cv2': OpenCVReader,
}
"""By the name of the package, the preferred one first."""


def installed_reader() -> str:
    """Return the first reader whose package is there; OpenCV always is."""
    return next(name for name in READERS if importlib.util.find_spec(name))


def open_video(path: str, reader: str = 'auto') -> Reader:
    """Open a video file.

    Raises:
        InputError: It does not exist or is no video.
        UserError: There is no such reader, or its package is not installed.
    """
    name = installed_reader() if reader == 'auto' else reader
    if name not in READERS or not importlib.util.find_spec(name):
        raise UserError(
            f'reader={reader!r}: install that package, or choose one of auto, {", ".join(READERS)}'
        )
    if not Path(path).is_file():
        raise InputError(f'{path} does not exist: correct the list or data_prefix.video')
    try:
        video = READERS[name](path)
        length = len(video)
    except Exception as error:  # readers raise whatever a file's bytes lead them to
        raise InputError(f'{path} is no video that {name} decodes ({error}): {WAY_OUT}') from error
    if not length:
        raise InputError(f'{path} holds no frame that {name} decodes: {WAY_OUT}')
    return video
