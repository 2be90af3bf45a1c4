"""Images as a network gets them: from a config's data or a folder of pictures."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor, nn

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.inference.decode import IMAGES, read_image
from mmuniformer.apis.inference.network import array_pipeline, config_meta
from mmuniformer.apis.inference.sources import listing
from mmuniformer.datasets.checks.annotations import check_dataset
from mmuniformer.deployment.files import quiet
from mmuniformer.errors import UserError


def data_images(cfg: Config, model: nn.Module, split: str, count: int) -> Iterator[np.ndarray]:
    """Yield images of the config's data, evenly spread, prepared as in a test.

    Args:
        cfg: The config.
        model: Its model, which normalizes them.
        split: ``train`` or ``test``.
        count: How many at most.

    Raises:
        UserError: The data are missing or do not fit.
    """
    dataset = copy.deepcopy(cfg.get(f'{split}_dataloader', {}).get('dataset', {}))
    if 'pipeline' not in dataset:
        raise UserError(f'the config has no {split}_dataloader.dataset with a pipeline')
    dataset.pipeline = cfg.test_dataloader.dataset.pipeline
    with quiet(), scope_of(cfg):
        check_dataset(dataset)
        samples = DATASETS.build(dataset)
        for index in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int):
            yield normalized(model, samples[int(index)])


def folder_images(cfg: Config, model: nn.Module, folder: Path, count: int) -> Iterator[np.ndarray]:
    """Yield the first images of a folder, prepared as in a test.

    Raises:
        InputError: It holds no image, or one that cannot be read.
    """
    images = [path for path in listing(folder) if path.suffix.lower() in IMAGES][:count]
    with quiet(), scope_of(cfg):
        pipeline, meta = Compose(array_pipeline(cfg)), config_meta(cfg)
        for path in images:
            image = read_image(path)
            height, width = image.shape[:2]
            person = {
                'bbox': np.array([[0, 0, width, height]], np.float32),
                'bbox_score': np.ones(1, np.float32),
            }
            yield normalized(model, pipeline({**meta, **person, 'img': image, 'img_id': 0}))


def normalized(model: nn.Module, sample: dict) -> np.ndarray:
    """Return a sample's image as the network gets it, ``(1, 3, H, W)``."""
    return model.data_preprocessor(pseudo_collate([sample]), False)['inputs'].numpy()


def canvases(cfg: Config, model: nn.Module, shape: tuple[int, int], count: int) -> Iterator[Tensor]:
    """Yield images of the test data that fit into a shape, each padded to it, ``(1, C, H, W)``.

    Raises:
        UserError: The data are missing or do not fit.
    """
    for image in data_images(cfg, model, 'test', count):
        image = torch.from_numpy(image)
        bottom, right = (side - own for side, own in zip(shape, image.shape[2:], strict=True))
        if bottom >= 0 and right >= 0:
            yield torch.nn.functional.pad(image, (0, right, 0, bottom))
