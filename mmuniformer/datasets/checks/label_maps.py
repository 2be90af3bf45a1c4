"""Checks on the label maps of segmentation, which the frameworks take as they come."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmuniformer.datasets.checks.types import image_suffix
from mmuniformer.errors import UserError

INDEX_MODES = ('1', 'L', 'P')
"""Pillow's names of pictures that hold one 8-bit index a pixel."""
FILES_CHECKED = 16


def check_image_folder(dataset: Mapping[str, Any]) -> None:
    """Refuse a data set without images, from its config: to build it would fail deep inside.

    Args:
        dataset: Config of a segmentation data set, as in ``train_dataloader.dataset``.

    Raises:
        UserError: The folder of images is missing, or has none of the suffix asked for.
    """
    folder = Path(dataset.get('data_root') or '') / dataset['data_prefix']['img_path']
    suffix = image_suffix(dataset)
    cure = (
        'put the data there or name another place by --cfg-options: data_root, '
        'data_prefix.img_path and img_suffix of train_dataloader.dataset, the same for val_ and '
        'test_'
    )
    if not folder.is_dir():
        raise UserError(f'the images should be in {folder}, which is no folder: {cure}')
    if not any(folder.rglob(f'*{suffix}')):
        raise UserError(f'{folder} has no images that end in {suffix}: {cure}')


def check_label_file(label_map: str | Path, image: str | Path) -> None:
    """Refuse a file that is no label map of its image.

    mmsegmentation takes the lower 8 bits of what it reads and does not compare sizes.

    Raises:
        UserError: The file can't be read, holds colours or more than 8 bits, or has another size
            than the image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(label_map) as labels:
            labels.load()
            mode, size = labels.mode, labels.size
        with Image.open(image) as picture:
            picture = ImageOps.exif_transpose(picture)  # decodes it
            image_size = picture.size
    except FileNotFoundError as error:
        raise UserError(missing_message(error.filename)) from None
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f'{label_map} or {image} cannot be read as an image: {error}') from None
    if mode not in INDEX_MODES:
        kind = 'more than 8 bits a pixel' if mode.startswith(('I', 'F')) else f'colours ({mode})'
        raise UserError(
            f'{label_map} holds {kind}: a label map is an 8-bit PNG of class indices, one number '
            'a pixel; write it as such'
        )
    if size != image_size:
        raise UserError(
            f'{label_map} is {size[0]} x {size[1]}, its image {image} {image_size[0]} x '
            f'{image_size[1]} (width x height, after its EXIF rotation): make them one size'
        )


def check_labels(labels: Tensor, num_classes: int, ignore_index: int, file: str) -> None:
    """Refuse labels that are no class of the model.

    Args:
        labels: Label map ``(1, H, W)`` as the model gets it.
        num_classes: Classes of the model.
        ignore_index: Label of the pixels that do not count.
        file: Name of the file, for the message.

    Raises:
        UserError: A label lies beyond the classes.
    """
    found = np.unique(labels.numpy())
    beyond = found[(found >= num_classes) & (found != ignore_index) | (found < 0)]
    if beyond.size:
        raise UserError(
            f'{file} holds the label{"s" * (beyond.size > 1)} {", ".join(map(str, beyond))} (as '
            f'the model sees it), but the model has the classes 0 to {num_classes - 1}; '
            f'{ignore_index} means no class. Mend the file, or set num_classes of the heads and '
            'metainfo.classes of the data sets; reduce_zero_label=True is for data whose 0 means '
            'no class.'
        )


def check_names(dataset: Any, head: nn.Module) -> None:
    """Refuse a data set that names other than as many classes as the model tells apart.

    Raises:
        UserError: The metrics would leave the others out without a word.
    """
    names = dataset.metainfo.get('classes')
    if names and len(names) != head.num_classes:
        raise UserError(
            f'{type(dataset).__name__} names {len(names)} classes ({", ".join(names[:3])}, ...), '
            f'and the heads tell {head.num_classes} apart: set num_classes of '
            'model.decode_head (and model.auxiliary_head), or dataset.metainfo.classes'
        )


def check_files(dataset: Any) -> None:
    """Refuse missing and empty files, and first ones that are no label maps (``check_label_file``).

    Raises:
        UserError: Names the file. Files on remote storage pass unseen.
    """
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        files = [str(info[key]) for key in ('img_path', 'seg_map_path') if key in info]
        if any('://' in file for file in files):
            return
        if index < FILES_CHECKED and 'seg_map_path' in info:
            check_label_file(info['seg_map_path'], info['img_path'])
        for file in files:
            if not os.path.exists(file):
                raise UserError(missing_message(file))
            if not os.path.getsize(file):
                raise UserError(f'{file} is empty: replace it, or remove it and what belongs to it')


def missing_message(file: str) -> str:
    """Say which file is missing, and where the data set would look for it."""
    return (
        f'{file} is missing: each image needs a label map of the same name; set '
        'dataset.data_prefix, img_suffix and seg_map_suffix to what your folders have'
    )


def check_batch(model: nn.Module, batch: dict[str, Any]) -> None:
    """Refuse a batch with labels that are no class of the model (``check_labels``)."""
    head = find_head(model)
    for sample in flat(batch['data_samples']) if head is not None else ():
        if 'gt_sem_seg' in sample:
            file = str(sample.get('seg_map_path', 'a label map'))
            check_labels(sample.gt_sem_seg.data, head.num_classes, head.ignore_index, file)


def find_head(model: nn.Module) -> nn.Module | None:
    """Return the decode head, also inside wrappers for test-time augmentation or several GPUs."""
    while is_model_wrapper(model) or not hasattr(model, 'decode_head'):
        model = getattr(model, 'module', None)
        if model is None:
            return None
    return model.decode_head


def flat(samples: Sequence[Any]) -> list[Any]:
    """Return the samples of a batch; with test-time augmentation there is a list of them each."""
    return [
        inner
        for entry in samples
        for inner in (flat(entry) if isinstance(entry, list) else [entry])
    ]
