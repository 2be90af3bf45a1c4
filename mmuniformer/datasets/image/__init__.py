"""Transforms of images for mmpretrain that it lacks: timm's augmentation, token labels."""

from mmuniformer.datasets.image.augment import TimmAugment

__all__ = ['TimmAugment']
