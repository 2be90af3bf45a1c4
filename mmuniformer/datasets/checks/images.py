"""Checks on the first images of a dataset."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmuniformer.errors import DataError

FILES_CHECKED = 16
"""Files of a dataset that are opened before a run; the others are when their turn comes."""


def image_size(file: Path) -> tuple[int, int] | None:
    """Return the (width, height) of an image as it is read: after its EXIF rotation.

    None for a format or size that Pillow refuses and the frameworks may read. Raises ``OSError``
    where there is no file, or it is no image, empty or truncated.
    """
    import cv2
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image).size
    except UnidentifiedImageError:
        if cv2.haveImageReader(str(file)):
            return None
        raise
    except Image.DecompressionBombError:
        return None


def file_of(sample: Mapping[str, Any]) -> str | None:
    """Return the image, video or folder of frames of a sample, by the keys of the frameworks."""
    names = (sample[key] for key in ('img_path', 'filename', 'frame_dir') if sample.get(key))
    return next(names, None)


def missing(paths: Iterable[str]) -> list[str]:
    """Return the paths that do not exist; each folder is looked into once."""
    by_folder = defaultdict(set)
    for path in paths:
        by_folder[os.path.dirname(path)].add(os.path.basename(path))
    absent = []
    for folder, names in by_folder.items():
        there = set(os.listdir(folder or '.')) if os.path.isdir(folder or '.') else set()
        absent += [os.path.join(folder, name) for name in sorted(names - there)]
    return absent


def leads_out(name: str) -> bool:
    """Tell whether a file name leads out of the folder that it is joined to."""
    return os.path.isabs(name) or '..' in name and '..' in Path(name).parts


def say_outside(source: Path, folder: str | Path | None, names: Iterable[str]) -> None:
    """Tell in the log of files that a list puts outside the folder of its images."""
    outside = [name for name in names if leads_out(name)]
    if outside:
        print_log(
            f'{source} names {len(outside)} files outside {folder or "the current folder"}, such '
            f'as {outside[0]!r}: they are read from there',
            'current',
            logging.WARNING,
        )


def check_images(
    source: Path, folder: str | Path | None, images: Sequence[Mapping[str, Any]]
) -> None:
    """Refuse images that are missing, cannot be decoded, or have another size than annotated.

    ``source`` names them: a ``file_name`` each, and perhaps ``width`` and ``height``. The log tells
    of files outside the folder.
    """
    say_outside(source, folder, (image['file_name'] for image in images))
    for image in images[:FILES_CHECKED]:
        file = Path(folder or '', image['file_name'])
        try:
            found = image_size(file)
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(
                f'{file}, named in {source}, cannot be read ({error}): correct it, or set '
                'dataset.data_root and dataset.data_prefix to where the images are'
            ) from None
        said = image.get('width'), image.get('height')
        if found and None not in said and found != said:
            raise DataError(
                f'{file} is {found[0]} x {found[1]} (width x height, after its EXIF rotation), and '
                f'{source} says {said[0]} x {said[1]}: annotate the image as it is read'
            )
