"""Transforms of the frames of clips: copies, RandAugment, and the views of testing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
from mmcv.transforms import BaseTransform, Compose

from mmuniformer.datasets.rand_augment import RandAugment, new_random
from mmuniformer.datasets.video.loading import Results
from mmuniformer.errors import UserError
from mmuniformer.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Copies(BaseTransform):
    """Augment one decoded clip several times: a list of samples, each by its own draw.

    The dataloader needs ``collate_fn=dict(type='repeat_pseudo_collate')``. The authors train with
    two copies, so that a step sees twice the batch.

    Args:
        copies: Number of samples.
        transforms: Configs of what augments and packs a sample.
    """

    def __init__(self, copies: int, transforms: Sequence[dict[str, Any]]):
        self.copies, self.transforms = copies, Compose(transforms)

    def transform(self, results: Results) -> list[Results]:
        """Return the samples."""
        return [self.transforms(dict(results)) for _ in range(self.copies)]


@TRANSFORMS.register_module()
class ClipRandAugment(BaseTransform):
    """RandAugment with the same operations on all frames.

    Args:
        policy: As timm writes it, such as 'rand-m7-n4-mstd0.5-inc1'.
        interpolation: 'bicubic' or 'bilinear'.
    """

    def __init__(self, policy: str, interpolation: str = 'bicubic'):
        self.augment = RandAugment(policy, interpolation)

    def transform(self, results: Results) -> Results:
        """Augment the frames."""
        return results | {'imgs': self.augment(results['imgs'], new_random())}


@TRANSFORMS.register_module()
class ShortSideResize(BaseTransform):
    """Resize frames so that their short side is ``scale``; the other is rounded down.

    mmaction2's ``Resize`` rounds it to the nearest.

    Args:
        scale: Pixels of the short side.
    """

    def __init__(self, scale: int):
        self.scale = scale

    def transform(self, results: Results) -> Results:
        """Resize the frames."""
        height, width = results['img_shape']
        if height < width:
            height, width = self.scale, math.floor(width / height * self.scale)
        else:
            height, width = math.floor(height / width * self.scale), self.scale
        images = results['imgs']
        if results['img_shape'] != (height, width):
            images = [cv2.resize(image, (width, height)) for image in images]
        return results | {'imgs': images, 'img_shape': (height, width)}


@TRANSFORMS.register_module()
class ClipCrop(BaseTransform):
    """Cut squares from the middle of frames, or three along their long side.

    mmaction2's crops lie a pixel apart where what is left over is odd.

    Args:
        crop_size: Side in pixels.
        crops: 1 or 3; the clips of each come after another.
    """

    def __init__(self, crop_size: int, crops: int = 1):
        if crops not in (1, 3):
            raise UserError(f'crops={crops}: choose 1, the middle, or 3')
        self.size, self.crops = crop_size, crops

    def transform(self, results: Results) -> Results:
        """Cut the frames."""
        size, (height, width) = self.size, results['img_shape']
        if min(height, width) < size:
            raise UserError(
                f'frames of {height} x {width} are smaller than crop_size={size}: set scale of '
                'ShortSideResize to at least as much'
            )
        middle = math.ceil((height - size) / 2), math.ceil((width - size) / 2)
        if width >= height:
            first, last = (middle[0], 0), (middle[0], width - size)
        else:
            first, last = (0, middle[1]), (height - size, middle[1])
        corners = (middle,) if self.crops == 1 else (first, middle, last)
        images = [
            image[top : top + size, left : left + size]
            for top, left in corners
            for image in results['imgs']
        ]
        return results | {'imgs': images, 'img_shape': (size, size)}
