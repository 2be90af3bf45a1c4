"""Random erasing of normalized images, as timm has it: noise of the images' mean and deviation.

Random erasing, arXiv 1708.04896. mmpretrain's transform erases before it normalizes, where noise
is cut off at black and white.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from mmuniformer.models.mix_token import TokenBox
from mmuniformer.registry import MODELS

AREA = 0.02, 1 / 3
"""Bounds of a box's share of an image."""
ASPECT = 0.3, 1 / 0.3
"""Bounds of its height over its width."""
ATTEMPTS = 10


def erase(images: Tensor, probability: float) -> Tensor:
    """Fill a box of some images ``(B, ..., H, W)`` with normal noise, in place.

    Args:
        images: Normalized.
        probability: Of an image to lose a box, in [0, 1].
    """
    for image in images:
        if np.random.rand() < probability and (box := random_box(*image.shape[-2:])):
            image[..., box.top : box.bottom, box.left : box.right].normal_()
    return images


def random_box(height: int, width: int) -> TokenBox | None:
    """Draw a box within an image; None if none of the drawn ones fits."""
    for _ in range(ATTEMPTS):
        area = np.random.uniform(*AREA) * height * width
        aspect = math.exp(np.random.uniform(*map(math.log, ASPECT)))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rows < height and columns < width:
            top = np.random.randint(height - rows + 1)
            left = np.random.randint(width - columns + 1)
            return TokenBox(top, left, top + rows, left + columns)
    return None


@MODELS.register_module()
class BatchErasing:
    """Random erasing as a batch augmentation of mmpretrain.

    Args:
        probability: Of an image to lose a box, in [0, 1].
    """

    def __init__(self, probability: float = 0.25):
        self.probability = probability

    def __call__(self, inputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """Return images that have lost boxes, and their targets."""
        return erase(inputs, self.probability), targets
