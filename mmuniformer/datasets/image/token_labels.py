"""Token labels of images: label maps from the disk, moved and cut as the image is.

Token labeling, arXiv 2104.10858. The order is as released: flip, load, augment, crop, labels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform

from mmuniformer.datasets.token_labels import read_label_map, token_label_target
from mmuniformer.errors import UserError
from mmuniformer.models.arch import TOTAL_STRIDE
from mmuniformer.registry import TRANSFORMS

Results = dict[str, Any]
"""What a pipeline hands on, by mmpretrain's keys."""
FLIPS = {'horizontal': (3,), 'vertical': (2,), 'diagonal': (2, 3)}
"""Axes of a label map by the direction of a flip."""


@TRANSFORMS.register_module()
class LoadLabelMap(BaseTransform):
    """Load the label map of an image, flipped if the image was.

    It lies at ``label_root/FOLDER/STEM.pt`` for an image ``.../FOLDER/STEM.JPEG``.

    Args:
        label_root: Folder of the maps; None or 'none' for none, so that all tokens get the label
            of their image.
        grid: Cells of a map along a side.
    """

    def __init__(self, label_root: str | None, grid: int = 18):
        self.label_root = None if label_root == 'none' else label_root
        self.grid = grid

    def map_of(self, image: str) -> str:
        """Return the path of an image's map."""
        folder, name = os.path.split(image)
        stem, _ = os.path.splitext(name)
        return os.path.join(self.label_root, os.path.basename(folder), f'{stem}.pt')

    def transform(self, results: Results) -> Results:
        """Add the map and where it came from."""
        if self.label_root is None:
            return results
        path = Path(self.map_of(results['img_path']))
        label_map = read_label_map(path, self.grid)
        if results.get('flip'):
            label_map = label_map.flip(FLIPS[results['flip_direction']])
        return results | {'label_map': label_map, 'label_map_path': path}


@TRANSFORMS.register_module()
class RandomResizedCropBox(BaseTransform):
    """mmpretrain's RandomResizedCrop by one of several interpolations, which tells its box.

    Args:
        scale: Side of the resized crop.
        interpolation: Names of interpolations, of which one is drawn.
        options: As mmpretrain's takes them.
    """

    def __init__(
        self,
        scale: int,
        interpolation: Sequence[str] = ('bilinear', 'bicubic'),
        **options: Any,
    ):
        self.crop = TRANSFORMS.build(
            dict(type='mmpretrain.RandomResizedCrop', scale=scale, **options)
        )
        self.interpolation = interpolation

    def transform(self, results: Results) -> Results:
        """Crop the image, and add top, left, height and width of the box as shares of it."""
        image = results['img']
        height, width = image.shape[:2]
        top, left, rows, columns = self.crop.rand_crop_params(image)
        image = mmcv.imresize(
            image[top : top + rows, left : left + columns],
            self.crop.scale[::-1],
            interpolation=str(np.random.choice(self.interpolation)),
            backend=self.crop.backend,
        )
        box = top / height, left / width, rows / height, columns / width
        return results | {'img': image, 'img_shape': image.shape[:2], 'crop_box': box}


@TRANSFORMS.register_module()
class TokenLabels(BaseTransform):
    """Make the ``token_labels`` of a crop, if its image has a label map.

    Args:
        num_classes: Count of classes.
        smoothing: Share of a label that is spread over all classes.
    """

    def __init__(self, num_classes: int, smoothing: float = 0.1):
        self.num_classes, self.smoothing = num_classes, smoothing

    def transform(self, results: Results) -> Results:
        """Add the target, ``(classes, 2 + tokens)``."""
        if 'label_map' not in results:
            return results
        label_map = results['label_map']
        wrong = label_map[1][(label_map[1] < 0) | (label_map[1] >= self.num_classes)]
        if len(wrong):
            raise UserError(
                f'{results["label_map_path"]} names the class {int(wrong[0])}, and TokenLabels has '
                f'num_classes={self.num_classes}: use maps of the same classes, or set num_classes '
                'there and in the model'
            )
        target = token_label_target(
            int(results['gt_label']),
            label_map,
            results['crop_box'],
            results['img'].shape[0] // TOTAL_STRIDE,
            self.num_classes,
            self.smoothing,
        )
        return results | {'token_labels': target}
