"""AutoAugment as the authors train: timm's policy ``v0``, of EfficientNet.

AutoAugment, arXiv 1805.09501; the table is of another search than the paper's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmuniformer.datasets.rand_augment import Augment, Operation, RandAugment

V0 = (
    (('Equalize', 0.8, 1), ('ShearY', 0.8, 4)),
    (('Color', 0.4, 9), ('Equalize', 0.6, 3)),
    (('Color', 0.4, 1), ('Rotate', 0.6, 8)),
    (('Solarize', 0.8, 3), ('Equalize', 0.4, 7)),
    (('Solarize', 0.4, 2), ('Solarize', 0.6, 2)),
    (('Color', 0.2, 0), ('Equalize', 0.8, 8)),
    (('Equalize', 0.4, 8), ('SolarizeAdd', 0.8, 3)),
    (('ShearX', 0.2, 9), ('Rotate', 0.6, 8)),
    (('Color', 0.6, 1), ('Equalize', 1.0, 2)),
    (('Invert', 0.4, 9), ('Rotate', 0.6, 0)),
    (('Equalize', 1.0, 9), ('ShearY', 0.6, 3)),
    (('Color', 0.4, 7), ('Equalize', 0.6, 0)),
    (('Posterize', 0.4, 6), ('AutoContrast', 0.4, 7)),
    (('Solarize', 0.6, 8), ('Color', 0.6, 9)),
    (('Solarize', 0.2, 4), ('Rotate', 0.8, 9)),
    (('Rotate', 1.0, 7), ('TranslateY', 0.8, 9)),
    (('ShearX', 0.0, 0), ('Solarize', 0.8, 4)),
    (('ShearY', 0.8, 0), ('Color', 0.6, 4)),
    (('Color', 1.0, 0), ('Rotate', 0.6, 2)),
    (('Equalize', 0.8, 4), ('Equalize', 0.0, 8)),
    (('Equalize', 1.0, 4), ('AutoContrast', 0.6, 2)),
    (('ShearY', 0.4, 7), ('SolarizeAdd', 0.6, 7)),
    (('Posterize', 0.8, 2), ('Solarize', 0.6, 10)),  # may leave a black image, as in timm
    (('Solarize', 0.6, 8), ('Equalize', 0.6, 1)),
    (('Color', 0.8, 6), ('Rotate', 0.4, 5)),
)
"""Pairs of operations, each with its probability and level; a draw takes one pair."""


class AutoAugment(Augment):
    """A pair of operations of a table."""

    policies = V0

    def draw(self, random: np.random.Generator) -> list[Operation]:
        """Draw the operations of one image or clip."""
        pair = self.policies[random.integers(len(self.policies))]
        return [
            self.operation(name, level, random)
            for name, probability, level in pair
            if random.random() < probability
        ]


def policy_augment(policy: str, *options: Any, **named: Any) -> Augment:
    """Return what a policy of timm does: ``v0``, or as ``RandAugment`` takes it."""
    if policy == 'v0':
        return AutoAugment(*options, **named)
    return RandAugment(policy, *options, **named)
