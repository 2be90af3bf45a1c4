"""Clips of videos for mmaction2: readers, sampling, augmentation and datasets."""

from mmuniformer.datasets.video.clips import ClipCrop, ClipRandAugment, Copies, ShortSideResize
from mmuniformer.datasets.video.dataset import FrameDataset, VideoDataset
from mmuniformer.datasets.video.loading import LoadFrames, OpenVideo, SampleDense, SampleSegments

__all__ = [
    'ClipCrop',
    'ClipRandAugment',
    'Copies',
    'FrameDataset',
    'LoadFrames',
    'OpenVideo',
    'SampleDense',
    'SampleSegments',
    'ShortSideResize',
    'VideoDataset',
]
