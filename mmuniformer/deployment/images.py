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
from torch.utils.data import Dataset

from mmuniformer.apis.config import scope_of, split_data, test_data
from mmuniformer.apis.inference.decode import IMAGES, read_image
from mmuniformer.apis.inference.network import array_pipeline, config_meta
from mmuniformer.apis.inference.sources import listing
from mmuniformer.datasets.checks.annotations import check_dataset
from mmuniformer.deployment.files import quiet


def images_from(source: str | Path, cfg: Config, model: nn.Module, count: int) -> Iterator[Tensor]:
    """Yield evenly spaced images ``(1, C, H, W)`` of a source, prepared as in a test.

    Args:
        source: ``'train'`` or ``'test'`` for the config's data, or a folder of images.
        cfg: The config.
        model: Its model, which normalizes the images.
        count: Most images.

    Raises:
        UserError: The data are missing or invalid.
        InputError: The folder has no image, or one that cannot be read.
    """
    with quiet(), scope_of(cfg):
        samples = Folder(source, cfg) if isinstance(source, Path) else dataset_of(cfg, source)
        for index in np.linspace(0, len(samples) - 1, min(count, len(samples)), dtype=int):
            batch = pseudo_collate([samples[int(index)]])
            yield model.data_preprocessor(batch, False)['inputs']


def dataset_of(cfg: Config, split: str) -> Dataset:
    """Build the data of a split with the test pipeline."""
    dataset = {**copy.deepcopy(split_data(cfg, split)), 'pipeline': test_data(cfg)['pipeline']}
    if cfg.get('check_data', True):
        check_dataset(dataset)
    return DATASETS.build(dataset)


class Folder(Dataset):
    """The images of a folder through the test pipeline; for pose, crops of one person each."""

    def __init__(self, folder: Path, cfg: Config):
        self.paths = [path for path in listing(folder) if path.suffix.lower() in IMAGES]
        self.pipeline, self.meta = Compose(array_pipeline(cfg)), config_meta(cfg)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = read_image(self.paths[index])
        height, width = image.shape[:2]
        box = {
            'bbox': np.array([[0, 0, width, height]], np.float32),
            'bbox_score': np.ones(1, np.float32),
        }
        return self.pipeline({**self.meta, **box, 'img': image, 'img_id': 0})


def padded_images(
    cfg: Config, model: nn.Module, shape: tuple[int, int], count: int
) -> Iterator[Tensor]:
    """Yield images ``(1, C, H, W)`` of the test data that fit into a shape, padded to it."""
    for image in images_from('test', cfg, model, count):
        bottom, right = (side - own for side, own in zip(shape, image.shape[2:], strict=True))
        if bottom >= 0 and right >= 0:
            yield torch.nn.functional.pad(image, (0, right, 0, bottom))
