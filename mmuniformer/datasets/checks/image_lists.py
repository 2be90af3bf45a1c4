"""Checks on labeled images: a list with ``PATH LABEL`` a line, or a folder a class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmuniformer.datasets.checks.images import check_images, missing
from mmuniformer.errors import DataError

LINE = re.compile(r'(?P<path>.+) (?P<label>\d+)')


def check_image_list(cfg: Mapping[str, Any], dataset: BaseDataset, content: Any = None) -> None:
    """Check the list or the folders of mmpretrain's ``CustomDataset``.

    Raises:
        DataError: A list does not exist, a line is written in another way, an image is not there,
            or the folders are not as many as the class names.
    """
    folder = Path(dataset.img_prefix)
    if not dataset.ann_file:
        if dataset.with_label:
            check_folders(folder, dataset.CLASSES)
        return
    file = Path(dataset.ann_file)
    if not file.is_file():
        raise DataError(f'{file}, the list of images, does not exist: set dataset.ann_file')
    names = []
    for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
        found = LINE.fullmatch(line.strip()) if dataset.with_label else None
        if dataset.with_label and not found:
            raise DataError(f'{file}, line {number}: {line!r} is not "PATH LABEL"')
        names.append(found['path'] if found else line)
    if absent := missing([str(folder / name) for name in names]):
        raise DataError(
            f'{file}: {len(absent)} of {len(names)} images do not exist, the first is {absent[0]}: '
            'set dataset.data_prefix to the folder that they are relative to, or take them out'
        )
    check_images(file, folder, [{'file_name': name} for name in names])


def check_folders(folder: Path, names: Sequence[str] | None) -> None:
    """Check that there is a folder for each class."""
    there = (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )
    if not there:
        raise DataError(
            f'{folder} holds no folders: without ann_file each class is a folder of images there; '
            'set dataset.data_root, data_prefix or ann_file'
        )
    if names and len(names) != len(there):
        raise DataError(
            f'{folder} holds {len(there)} folders, {", ".join(there[:6])}, and metainfo.classes '
            f'{len(names)} names: give a folder for each name, if need be an empty one'
        )
