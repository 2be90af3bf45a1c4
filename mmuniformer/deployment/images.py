"""Images as the network takes them, from a config's data or a folder."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor, nn

from mmuniformer.apis.config import scope_of, split_data
from mmuniformer.apis.inference.decode import is_video, read_image
from mmuniformer.apis.inference.network import array_pipeline
from mmuniformer.apis.inference.sources import listing
from mmuniformer.apis.models import quiet
from mmuniformer.datasets.checks.config import dataset_meta
from mmuniformer.datasets.checks.dataset import check_dataset
from mmuniformer.errors import UserError

COMPARED_IMAGES = 16


def images_from(source: str | Path, cfg: Config, model: nn.Module, count: int) -> Iterator[Tensor]:
    """Return evenly spaced images ``(1, C, H, W)`` of a source, prepared as in a test.

    Args:
        source: ``'train'`` or ``'test'`` for the config's data, or a folder of images; for pose,
            each is the crop of one person.
        cfg: The config.
        model: Its model, which normalizes the images.
        count: Most images.

    Returns:
        An iterator that reads an image when its turn comes; the source is checked before.

    Raises:
        UserError: The data are missing or invalid, or there is no image.
        InputError: An image of the folder cannot be read.
    """
    with quiet(), scope_of(cfg):
        if isinstance(source, Path):
            paths = [path for path in listing(source) if not is_video(path)]
            pipeline, meta = Compose(array_pipeline(cfg)), dataset_meta(split_data(cfg))

            def sample(index: int) -> dict[str, Any]:
                image = read_image(paths[index])
                height, width = image.shape[:2]
                box = {
                    'bbox': np.array([[0, 0, width, height]], np.float32),
                    'bbox_score': np.ones(1, np.float32),
                }
                return pipeline({**meta, **box, 'img': image, 'img_id': 0})

            total = len(paths)
        else:
            settings = copy.deepcopy(split_data(cfg, source))
            settings.update(pipeline=split_data(cfg)['pipeline'])
            if cfg.get('check_data', True):
                check_dataset(settings)
            dataset = DATASETS.build(settings)
            total, sample = len(dataset), dataset.__getitem__
    if not total:
        raise UserError(f'there is no image in {source}')
    chosen = np.linspace(0, total - 1, min(count, total), dtype=int).tolist()
    batches = (pseudo_collate([sample(index)]) for index in chosen)
    return (model.data_preprocessor(batch, False)['inputs'] for batch in batches)


def images_to_compare(cfg: Config, model: nn.Module, size: tuple[int, int]) -> list[Tensor]:
    """Return images ``(1, C, H, W)`` of the test data that fit into a size, padded to it.

    Raises:
        UserError: The data are missing, or no image fits.
    """
    fix = 'detectors are compared on test data: set their path with --cfg-options, or --no-check'
    try:
        images = images_from('test', cfg, model, COMPARED_IMAGES)
    except UserError as error:
        raise UserError(f'{error} ({fix})') from error
    padded = []
    for image in images:
        bottom, right = (side - own for side, own in zip(size, image.shape[2:], strict=True))
        if bottom >= 0 and right >= 0:
            padded.append(torch.nn.functional.pad(image, (0, right, 0, bottom)))
    if not padded:
        raise UserError(f'no image of the test data fits into {size[0]} x {size[1]} ({fix})')
    return padded
