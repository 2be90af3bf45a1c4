"""timm's augmentation of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmuniformer.datasets.auto_augment import policy_augment
from mmuniformer.datasets.rand_augment import apply, new_random
from mmuniformer.datasets.token_labels import moved
from mmuniformer.registry import TRANSFORMS

IMAGENET_MEAN = (124, 116, 104)
"""Red, green and blue."""


@TRANSFORMS.register_module()
class TimmAugment(BaseTransform):
    """RandAugment or AutoAugment of an image in BGR; warps move its label map, too.

    Args:
        policy: As timm writes it, such as 'rand-m9-mstd0.5-inc1'; 'v0' for AutoAugment.
        interpolation: 'bicubic', 'bilinear', or 'random' for one of them by chance.
        fill: Red, green and blue of what comes from outside of the image.
    """

    def __init__(
        self, policy: str, interpolation: str = 'bicubic', fill: Sequence[int] = IMAGENET_MEAN
    ):
        self.augment = policy_augment(policy, interpolation, fill)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Augment the image."""
        operations = self.augment.draw(new_random())
        (image,) = apply(operations, [np.ascontiguousarray(results['img'][..., ::-1])])
        results = results | {'img': np.ascontiguousarray(image[..., ::-1])}
        if 'label_map' in results:
            results['label_map'] = moved(results['label_map'], operations)
        return results
