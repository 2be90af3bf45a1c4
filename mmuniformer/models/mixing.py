"""Mixup and CutMix of a batch with itself in reverse order, as the authors train classifiers.

Both frameworks mix with a random permutation of the batch; here the last sample goes with the
first, and one draw serves the whole batch, images or clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn import functional

from mmuniformer.errors import UserError
from mmuniformer.models.erasing import erase
from mmuniformer.models.mix_token import TokenBox, mix_images
from mmuniformer.registry import MODELS


@MODELS.register_module()
class BatchMix:
    """Mixup or CutMix by chance, one of the two for each batch.

    In mmaction2's ``ActionDataPreprocessor`` as ``blending``, in a batch augmentation of
    mmpretrain: called with scores ``(B, classes)`` it returns scores, with data samples samples.

    Args:
        num_classes: Count of classes; only data samples of mmaction2 need it.
        mixup_alpha: Parameter of the Beta distribution of Mixup's share.
        cutmix_alpha: The same of CutMix's.
        switch_prob: Probability of CutMix, in [0, 1].
        erase_prob: Probability of an image to lose a box before (random erasing), in [0, 1].

    Raises:
        UserError: The batch has a single sample, or a label that is no class.
    """

    def __init__(
        self,
        num_classes: int = 0,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 1.0,
        switch_prob: float = 0.5,
        erase_prob: float = 0.0,
    ):
        self.num_classes = num_classes
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.switch_prob = switch_prob
        self.erase_prob = erase_prob

    def __call__(self, inputs: Tensor, targets: Any) -> tuple[Tensor, Any]:
        """Return mixed inputs, float ``(B, ..., H, W)``, and the targets of the mixtures."""
        if len(inputs) < 2:
            raise UserError(
                'Mixup and CutMix need two samples, and a batch holds one: set '
                'train_dataloader.batch_size to more, and drop_last=True'
            )
        if self.erase_prob:
            inputs = erase(inputs, self.erase_prob)
        if isinstance(targets, Tensor):
            return self.mix(inputs, targets)
        inputs, mixed = self.mix(inputs, self.one_hot(targets).to(inputs))
        for sample, row in zip(targets, mixed, strict=True):
            sample.set_field(row, 'gt_label')
        return inputs, targets

    def one_hot(self, samples: Sequence[BaseDataElement]) -> Tensor:
        """Return the labels of data samples as rows of scores."""
        labels = torch.cat([sample.gt_label for sample in samples])
        if labels.max() >= self.num_classes or labels.min() < 0:
            raise UserError(
                f'a sample has the label {int(labels.max())}, and num_classes is '
                f'{self.num_classes}: labels are numbers from 0 to {self.num_classes - 1}'
            )
        return functional.one_hot(labels, self.num_classes)

    def mix(self, inputs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Mix inputs and scores."""
        if np.random.rand() < self.switch_prob:
            share = np.random.beta(self.cutmix_alpha, self.cutmix_alpha)
            box = random_box(*inputs.shape[-2:], share)
            inputs = mix_images(inputs, box)
            share = 1 - box.area / (inputs.shape[-1] * inputs.shape[-2])
        else:
            share = np.random.beta(self.mixup_alpha, self.mixup_alpha)
            inputs = share * inputs + (1 - share) * inputs.flip(0)
        return inputs, share * scores + (1 - share) * scores.flip(0)


def random_box(height: int, width: int, share: float) -> TokenBox:
    """Draw a box that leaves, before clipping, a share of the area."""

    def edges(side: int) -> tuple[int, int]:
        center, half = np.random.randint(side), int(side * (1 - share) ** 0.5) // 2
        return max(center - half, 0), min(center + half, side)

    (top, bottom), (left, right) = edges(height), edges(width)
    return TokenBox(top, left, bottom, right)
