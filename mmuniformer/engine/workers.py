"""What processes that load data do when signals come and when samples cannot be used."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.runner import BaseLoop

from mmuniformer.datasets.checks.images import file_of
from mmuniformer.errors import UserError

WORKER_GRACE = 15
"""Seconds for which a process that loads data goes on when it is told to end."""

TAIL = 1 << 16
"""Bytes at the end of a file that are searched for its last marker before it is decoded."""


class PatientWorker:
    """A ``worker_init_fn`` that lets the main process decide when to end.

    A terminal and slurm send signals to all processes of a run. A process that loads data and ends
    by itself breaks the iteration of the main process, which is about to save.
    """

    def __init__(self, init: Any):
        self.init = init
        self.patient = torch.ones(1).share_memory_()

    def __call__(self, worker: int) -> None:
        """Prepare a worker."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self.end)
        if self.init is not None:
            self.init(worker)

    def end(self, number: int, frame: Any) -> None:
        """End soon, or at once if the run is over."""
        if not self.patient:
            os._exit(0)
        signal.alarm(WORKER_GRACE)

    @staticmethod
    def release(loop: BaseLoop) -> None:
        """End the workers of a loop; left to the garbage collector each would take seconds."""
        init = getattr(loop.dataloader, 'worker_init_fn', None)
        if isinstance(init, PatientWorker):
            init.patient.zero_()
            loop.dataloader._iterator = None  # of persistent workers
            if hasattr(loop, 'dataloader_iterator'):
                loop.dataloader_iterator = None


class NamingCompose(Compose):
    """A pipeline that names the sample that fails in it.

    It also refuses a file that was cut off, which OpenCV fills up with gray, and (``check_size``)
    an image or a label map of another size than annotated.
    """

    def __init__(self, transforms: list[Any], check_size: bool):
        super().__init__(transforms)
        self.check_size = check_size

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | None:
        """Run the transforms on a sample.

        Raises:
            UserError: One of them fails.
        """
        file, seg_map = file_of(data), data.get('seg_map_path')
        said = data.get('width'), data.get('height')
        unsized = seg_map and self.check_size
        try:
            for transform in self.transforms:
                data = transform(data)
                if data is None:
                    return None
                if not isinstance(data, dict):  # several samples of one
                    continue
                if said and isinstance(size := data.get('ori_shape'), tuple):
                    self.check(file, size[1::-1], said)
                    said = None
                if unsized and 'gt_seg_map' in data:
                    check_label_map_size(seg_map, file, data)
                    unsized = False
            return data
        except UserError:
            raise
        except Exception as error:
            files = ' with '.join(str(path) for path in (file, seg_map) if path) or 'A sample'
            reason = ' '.join(str(error).split())[:300]
            raise UserError(
                f'{files} cannot be used ({type(error).__name__}: {reason}): correct it or leave '
                'it out of the annotations'
            ) from error

    def check(self, file: Any, size: tuple[int, int], said: tuple[Any, Any]) -> None:
        """Check an image that was just loaded; sizes are (width, height)."""
        if not isinstance(file, str) or '://' in file:
            return
        if is_cut_off(Path(file)):
            raise UserError(f'{file} ends early, it has been cut off: replace it or leave it out')
        if self.check_size and None not in said and size != said:
            raise UserError(
                f'{file} is {size[0]} x {size[1]} (width x height), and was annotated at '
                f'{said[0]} x {said[1]}: put the file back, or annotate it as it is'
            )


def check_label_map_size(seg_map: Any, file: Any, data: Mapping[str, Any]) -> None:
    """Refuse a label map of another size than its image, which crops would shift against it."""
    found, size = np.shape(data['gt_seg_map'])[:2], data.get('ori_shape')
    if size and found != tuple(size[:2]):
        raise UserError(
            f'{seg_map} is {found[1]} x {found[0]}, its image {file} {size[1]} x {size[0]} (width '
            'x height): make them one size'
        )


def is_cut_off(file: Path) -> bool:
    """Tell whether a JPEG or PNG lacks its end; others and what cannot be read pass."""
    markers = {'.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9', '.png': b'IEND'}
    end = markers.get(file.suffix.lower())
    if end is None:
        return False
    try:
        with open(file, 'rb') as stream:
            start = stream.read(4)
            stream.seek(max(0, file.stat().st_size - TAIL))
            tail = stream.read()
    except OSError:
        return False
    if start[:2] != b'\xff\xd8' and start != b'\x89PNG':  # the suffix is wrong
        return False
    # A JPEG's thumbnail, before the image, has an end of its own.
    ends = tail.rfind(end) > tail.rfind(b'\xff\xda') if end[0] == 255 else end in tail
    return not ends and not decodes(file)  # phones write videos behind their photos


def decodes(file: Path) -> bool:
    """Tell whether Pillow reads an image to its end; larger ones than it takes pass."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def name_samples(dataset: Any, check_size: bool) -> None:
    """Let the pipelines of a dataset, also inside wrappers, name what fails in them."""
    for inner in leaves(dataset):
        if type(getattr(inner, 'pipeline', None)) is Compose:
            inner.pipeline = NamingCompose(inner.pipeline.transforms, check_size)


def leaves(dataset: Any) -> Iterator[Any]:
    """Yield a dataset and those that it wraps."""
    yield dataset
    inner = getattr(dataset, 'dataset', None)
    for child in [inner] if inner is not None else getattr(dataset, 'datasets', ()):
        yield from leaves(child)
