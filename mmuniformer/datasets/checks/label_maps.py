"""Checks on the label maps of segmentation, which the frameworks take as they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.fileio import list_dir_or_file
from torch import Tensor, nn

from mmuniformer.datasets.checks.images import FILES_CHECKED, image_size
from mmuniformer.datasets.checks.types import unread
from mmuniformer.errors import DataError


def check_image_folder(cfg: Mapping[str, Any]) -> None:
    """Refuse a dataset without images: to build it would fail deep inside.

    Args:
        cfg: Config of a segmentation dataset, as in ``train_dataloader.dataset``.

    Raises:
        DataError: The folder of images is missing, or has none of the suffix asked for.
    """
    folder = Path(cfg.get('data_root') or '', (cfg.get('data_prefix') or {}).get('img_path') or '')
    fix = (
        'put the data there or name another place by --cfg-options: data_root, '
        'data_prefix.img_path and img_suffix of train_dataloader.dataset, the same for val_ and '
        'test_'
    )
    if not folder.is_dir():
        raise DataError(f'the images should be in {folder}, which is no folder: {fix}')
    listing = Path(cfg.get('data_root') or '', cfg.get('ann_file') or '')
    if not listing.exists():
        raise DataError(f'{listing}, the list of images, does not exist: set dataset.ann_file')
    suffix = unread(cfg).img_suffix
    if not any(list_dir_or_file(folder, list_dir=False, suffix=suffix, recursive=True)):
        raise DataError(f'{folder} has no images that end in {suffix}: {fix}')


def check_label_file(label_map: str | Path, image: str | Path) -> None:
    """Refuse a file that is no label map of its image.

    mmsegmentation takes the lower 8 bits of what it reads and does not compare sizes.

    Raises:
        DataError: The file cannot be read, holds colors or other numbers than 0 to 255, or has
            another size than the image.
    """
    from PIL import Image

    try:
        with Image.open(label_map) as file:
            mode, labels = file.mode, np.asarray(file)
        found = image_size(Path(image))
    except FileNotFoundError as error:
        raise DataError(missing_message(error.filename)) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f'{label_map} or {image} cannot be read as an image: {error}') from None
    if labels.ndim != 2:
        raise DataError(
            f'{label_map} holds colors ({mode}): a label map is a PNG of class indices, one number '
            'a pixel; write it as such'
        )
    with np.errstate(invalid='ignore'):
        beyond = labels[labels != labels.astype(np.uint8)]
    if beyond.size:
        raise DataError(
            f'{label_map} holds the label {beyond[0]}, and mmsegmentation reads no other than '
            'whole numbers from 0 to 255: number the classes anew'
        )
    size = labels.shape[::-1]
    if found and size != found[0]:
        raise DataError(
            f'{label_map} is {size[0]} x {size[1]}, its image {image} {found[0][0]} x '
            f'{found[0][1]} (width x height, after its EXIF rotation): make them one size'
        )


def check_labels(labels: Tensor, num_classes: int, ignore_index: int, file: str) -> None:
    """Refuse labels that are no class of the model.

    Args:
        labels: Label map ``(1, H, W)`` as the model gets it.
        num_classes: Classes of the model.
        ignore_index: Label of the pixels that do not count.
        file: Name of the file, for the message.

    Raises:
        DataError: A label lies beyond the classes.
    """
    found = np.unique(labels.numpy())
    beyond = found[(found >= num_classes) & (found != ignore_index) | (found < 0)]
    if beyond.size:
        raise DataError(
            f'{file} holds the label{"s" * (beyond.size > 1)} {", ".join(map(str, beyond))} (as '
            f'the model sees it), but the model has the classes 0 to {num_classes - 1}; '
            f'{ignore_index} means no class. Fix the file, or set num_classes of the heads and '
            'metainfo.classes of the datasets; reduce_zero_label=True is for data whose 0 means '
            'no class.'
        )


def check_names(dataset: Any, head: nn.Module) -> None:
    """Refuse a dataset that names other than as many classes as the model tells apart.

    Raises:
        DataError: The metrics would leave the others out without a word.
    """
    names = dataset.metainfo.get('classes')
    if names and len(names) != head.num_classes:
        raise DataError(
            f'{type(dataset).__name__} names {len(names)} classes ({", ".join(names[:3])}, ...), '
            f'and the heads tell {head.num_classes} apart: set num_classes of '
            'model.decode_head (and model.auxiliary_head), or dataset.metainfo.classes'
        )


def check_files(dataset: Any) -> None:
    """Refuse a dataset whose first files are missing or no label maps (``check_label_file``).

    Label maps count where its pipeline loads them, and are opened where it does so by Pillow, from
    images that Pillow knows, too. The other files are read when their turn comes.

    Raises:
        DataError: Names the file. Files on remote storage pass unseen.
    """
    loaders = {
        type(step).__name__: getattr(step, 'imdecode_backend', None)
        for step in dataset.pipeline.transforms
    }
    keys = ('img_path', 'seg_map_path') if 'LoadAnnotations' in loaders else ('img_path',)
    opened = loaders.get('LoadAnnotations') == 'pillow' and 'LoadImageFromFile' in loaders
    for index in range(min(len(dataset), FILES_CHECKED)):
        info = dataset.get_data_info(index)
        files = [str(info[key]) for key in keys if info.get(key)]
        if any('://' in file for file in files):
            return
        for file in files:
            if not Path(file).exists():
                raise DataError(missing_message(file))
        if opened and len(files) == 2:
            check_label_file(files[1], files[0])


def missing_message(file: str) -> str:
    """Say which file is missing, and where the dataset looks for it."""
    return (
        f'{file} is missing: each image needs a label map of the same name; set '
        'dataset.data_prefix, img_suffix and seg_map_suffix to what your folders have'
    )


def check_batch(head: nn.Module, batch: dict[str, Any]) -> None:
    """Refuse a batch with labels that are no class of a decode head (``check_labels``)."""
    for sample in flat(batch['data_samples']):
        if 'gt_sem_seg' in sample:
            file = str(sample.get('seg_map_path', 'a label map'))
            check_labels(sample.gt_sem_seg.data, head.num_classes, head.ignore_index, file)


def flat(samples: Sequence[Any]) -> list[Any]:
    """Return the samples of a batch; with test-time augmentation there is a list of them each."""
    return [
        inner
        for entry in samples
        for inner in (flat(entry) if isinstance(entry, list) else [entry])
    ]
