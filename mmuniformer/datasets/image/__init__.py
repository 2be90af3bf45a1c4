"""Transforms of images for mmpretrain that it lacks: timm's augmentation, token labels."""

from mmuniformer.datasets.image.augment import TimmAugment
from mmuniformer.datasets.image.token_labels import (
    LoadLabelMap,
    RandomResizedCropBox,
    TokenLabels,
)

__all__ = ['LoadLabelMap', 'RandomResizedCropBox', 'TimmAugment', 'TokenLabels']
