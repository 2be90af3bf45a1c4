"""Toy data for classification: objects cut out of the scenes, and drawn clips.

Both are folders of classes: ``cls/SPLIT/CLASS/ID.png`` (the annotation's id) and
``video/SPLIT/MOTION/NUMBER.avi``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mmuniformer.datasets.toy.folder import CLIPS, CROPS, SPLITS, ToyData, annotation_file
from mmuniformer.datasets.toy.motion import MOTIONS, SUFFIX, encode_clip, toy_clip
from mmuniformer.datasets.toy.write import CLASSES
from mmuniformer.errors import UserError

CROP_SIDE = 64
MARGIN = 0.15
"""Seen around an object, a share of its longer side at each edge."""
CLIPS_PER_MOTION = {'train': 80, 'val': 20}


def write_toy_crops(data: ToyData) -> Path:
    """Write the objects of the scenes as square images, and return the folder of the splits.

    What an earlier call has written stays.

    Raises:
        UserError: The files cannot be written.
    """
    return _write(data.out / CROPS, lambda split, folder: _write_crops(data, split, folder))


def write_toy_clips(data: ToyData) -> Path:
    """Write the clips of all motions, and return the folder of the splits.

    A clip depends on the seed of the data, its split, motion and number. What an earlier call has
    written stays.

    Raises:
        UserError: The files cannot be written.
    """
    return _write(
        data.out / CLIPS, lambda split, folder: _write_clips(data.settings.seed, split, folder)
    )


def _write(out: Path, write_split: Callable[[str, Path], None]) -> Path:
    """Write all splits, or nothing under the final name."""
    if all((out / split).is_dir() for split in SPLITS):
        return out
    if out.exists():
        raise UserError(f'{out} lacks {" or ".join(SPLITS)}: remove it, and it is written again')
    part = out.with_name(f'.{out.name}.part')
    try:
        shutil.rmtree(part, ignore_errors=True)
        for split in SPLITS:
            write_split(split, part / split)
        part.rename(out)
    except OSError as error:
        raise UserError(
            f'{error.filename or out} cannot be written ({error.strerror or error}): name a folder '
            f'with room for the data and the right to write there'
        ) from error
    return out


def _write_crops(data: ToyData, split: str, folder: Path) -> None:
    truth = json.loads((data.out / annotation_file(split, 'instances')).read_text(encoding='utf-8'))
    folder_of_images = data.coco / SPLITS[split][0]
    images = {image['id']: folder_of_images / image['file_name'] for image in truth['images']}
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for entry in truth['annotations']:
        image = cv2.imread(str(images[entry['image_id']]))
        path = folder / CLASSES[entry['category_id'] - 1] / f'{entry["id"]:05d}.png'
        _save(path, cv2.imwrite(str(path), crop(image, entry['bbox'])))


def crop(image: np.ndarray, box: list[float]) -> np.ndarray:
    """Cut the square around a box ``(x, y, width, height)``, with a margin and mirrored borders."""
    left, top, width, height = box
    side = max(width, height) * (1 + 2 * MARGIN)
    scale = CROP_SIDE / side
    corner = np.array([left + (width - side) / 2, top + (height - side) / 2])
    # The center of a pixel is half a pixel from its edge, and OpenCV counts from centers.
    shift = (0.5 - corner) * scale - 0.5
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(
        image, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _write_clips(seed: int, split: str, folder: Path) -> None:
    for label, motion in enumerate(MOTIONS):
        (folder / motion).mkdir(parents=True)
        for index in range(CLIPS_PER_MOTION[split]):
            stream = (seed, list(SPLITS).index(split), label, index)
            path = folder / motion / f'{index:04d}{SUFFIX}'
            _save(path, encode_clip(str(path), toy_clip(motion, np.random.default_rng(stream))))


def _save(path: Path, done: bool) -> None:
    """Raise OSError unless OpenCV, which does not say why, could write a file."""
    if not done:
        raise OSError(0, 'OpenCV could not write it', str(path))
