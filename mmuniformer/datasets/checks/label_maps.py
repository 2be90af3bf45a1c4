"""Checks on the label maps of segmentation, which the frameworks take as they come."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset, Compose
from mmengine.fileio import list_dir_or_file
from torch import nn

from mmuniformer.datasets.checks.config import is_remote
from mmuniformer.datasets.checks.images import FILES_CHECKED, image_size, say_outside
from mmuniformer.errors import DataError

NO_CLASS = 65535
"""The highest number of 16 bits, whose lower 8 bits are 255, which no class has."""


def check_image_folder(cfg: Mapping[str, Any], dataset: BaseDataset) -> None:
    """Refuse a segmentation dataset without images: to build it would fail deep inside."""
    folder, suffix = Path(dataset.data_prefix.get('img_path') or ''), dataset.img_suffix
    images = folder.is_dir() and list_dir_or_file(folder, False, suffix=suffix, recursive=True)
    if not images or not any(images):
        raise DataError(
            f'{folder} has no images that end in {suffix}: set data_root, data_prefix.img_path and '
            'img_suffix of train_dataloader.dataset, the same for val_ and test_'
        )
    names = Path(dataset.ann_file)
    if dataset.ann_file and not names.is_dir():
        if not names.is_file():
            raise DataError(f'{names} does not exist: set dataset.ann_file, or leave it out')
        say_outside(names, folder, names.read_text('utf-8', errors='replace').splitlines())


def check_label_map(label_map: Path, image: Path) -> None:
    """Refuse a file that is no label map of its image.

    mmsegmentation takes the lower 8 bits of what it reads and does not compare sizes.
    """
    from PIL import Image

    try:
        with Image.open(label_map) as file:
            mode, labels = file.mode, np.asarray(file)
        size = image_size(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{label_map} or {image} cannot be read as an image: {error}') from None
    if labels.ndim != 2:
        raise DataError(f'{label_map} holds colors ({mode}): give a PNG of class indices')
    with np.errstate(invalid='ignore'):
        beyond = labels[(labels != labels.astype(np.uint8)) & (labels != NO_CLASS)]
    if beyond.size:
        raise DataError(
            f'{label_map} holds the label {beyond[0]}, and mmsegmentation reads no other than '
            'whole numbers from 0 to 255: number the classes anew'
        )
    if size and size != labels.shape[::-1]:
        raise DataError(
            f'{label_map} is {labels.shape[1]} x {labels.shape[0]}, its image {image} {size[0]} x '
            f'{size[1]} (width x height, after its EXIF rotation): make them one size'
        )


def check_files(dataset: Any) -> None:
    """Refuse a dataset, or a wrapper of some, whose first files are missing or no label maps.

    Label maps are opened where its pipeline loads them by Pillow. Remote files pass unseen.
    """
    if hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        for inner in getattr(dataset, 'datasets', None) or [dataset.dataset]:
            check_files(inner)
        return
    if not isinstance(getattr(dataset, 'pipeline', None), Compose):  # no dataset of mmengine
        return
    steps = dataset.pipeline.transforms
    if any(is_remote(getattr(step, 'backend_args', None)) for step in steps):
        return
    loaders = {type(step).__name__: getattr(step, 'imdecode_backend', None) for step in steps}
    keys = ('img_path', 'seg_map_path') if 'LoadAnnotations' in loaders else ('img_path',)
    opened = loaders.get('LoadAnnotations') == 'pillow' and 'LoadImageFromFile' in loaders
    for index in range(min(len(dataset), FILES_CHECKED)):
        info = dataset.get_data_info(index)
        files = [Path(info[key]) for key in keys if info.get(key) and '://' not in str(info[key])]
        for file in files:
            if not file.exists():
                raise DataError(
                    f'{file} is missing: each image needs a label map of the same name; set '
                    'dataset.data_prefix, img_suffix and seg_map_suffix to what your folders have'
                )
        if opened and len(files) == 2:
            check_label_map(files[1], files[0])


def check_names(dataset: Any, head: nn.Module) -> None:
    """Refuse a dataset that names other than as many classes as the model tells apart."""
    names = getattr(dataset, 'metainfo', {}).get('classes')
    if names and len(names) != head.num_classes:
        raise DataError(
            f'{type(dataset).__name__} names {len(names)} classes ({", ".join(names[:3])}, ...), '
            f'and the heads have {head.num_classes}: set num_classes of model.decode_head and '
            'model.auxiliary_head, or dataset.metainfo.classes'
        )


def check_batch(head: nn.Module, batch: dict[str, Any]) -> None:
    """Refuse a batch with labels that are no class of a decode head."""
    samples = batch['data_samples']  # lists of them with test-time augmentation
    for sample in chain.from_iterable(s if isinstance(s, list) else [s] for s in samples):
        if 'gt_sem_seg' not in sample:
            continue
        labels = sample.gt_sem_seg.data
        wrong = (labels >= head.num_classes) & (labels != head.ignore_index) | (labels < 0)
        if wrong.any():
            found = ', '.join(map(str, labels[wrong].unique().tolist()))
            raise DataError(
                f'{sample.get("seg_map_path", "A label map")} holds labels beyond the classes 0 to '
                f'{head.num_classes - 1} of the model: {found} as it sees them. Fix the file, or '
                'set num_classes of the heads and metainfo.classes of the datasets; set '
                'reduce_zero_label=True if 0 means no class'
            )
