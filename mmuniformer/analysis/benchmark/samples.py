"""Random annotations for a training step of each task, in the frameworks' own form."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

OBJECTS = 10
"""Objects in an image of a detector."""


def meta_of(images: Tensor) -> dict[str, Any]:
    """Return what the frameworks want to know of images that nothing was done to."""
    size = tuple(images.shape[2:])
    return {
        'img_shape': size,
        'ori_shape': size,
        'pad_shape': size,
        'batch_input_shape': size,
        'scale_factor': (1.0, 1.0),
        'padding_size': [0, 0, 0, 0],
    }


def detection_samples(cfg: Config, model: nn.Module, images: Tensor) -> list[Any]:
    """Make boxes of random place, size and class, with their rectangles as masks."""
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    head = model.roi_head.bbox_head if hasattr(model, 'roi_head') else model.bbox_head
    classes = (head[0] if isinstance(head, nn.ModuleList) else head).num_classes
    height, width = images.shape[2:]
    samples = []
    for _ in images:
        start = torch.rand(OBJECTS, 2) * 0.7
        size = 0.1 + torch.rand(OBJECTS, 2) * 0.2
        boxes = torch.cat([start, start + size], 1) * torch.tensor([width, height] * 2)
        masks = np.zeros((OBJECTS, height, width), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        objects = InstanceData(
            bboxes=boxes.to(images.device),
            labels=torch.randint(classes, (OBJECTS,), device=images.device),
            masks=BitmapMasks(masks, height, width),
        )
        samples.append(DetDataSample(metainfo=meta_of(images), gt_instances=objects))
    return samples


def segmentation_samples(cfg: Config, model: nn.Module, images: Tensor) -> list[Any]:
    """Make label maps of random classes."""
    from mmseg.structures import SegDataSample

    maps = torch.randint(
        model.num_classes, (len(images), 1, *images.shape[2:]), device=images.device
    )
    return [
        SegDataSample(metainfo=meta_of(images), gt_sem_seg=PixelData(data=labels))
        for labels in maps
    ]


def pose_samples(cfg: Config, model: nn.Module, images: Tensor) -> list[Any]:
    """Make random heatmaps, at the stride of the config's."""
    from mmpose.structures import PoseDataSample

    stride = cfg.codec.input_size[0] // cfg.codec.heatmap_size[0]
    keypoints = model.head.out_channels
    size = [side // stride for side in images.shape[2:]]
    weights = torch.ones(1, keypoints, device=images.device)
    return [
        PoseDataSample(
            metainfo={**meta_of(images), 'flip_indices': list(range(keypoints))},
            gt_fields=PixelData(heatmaps=torch.rand(keypoints, *size, device=images.device)),
            gt_instance_labels=InstanceData(keypoint_weights=weights),
        )
        for _ in images
    ]


SAMPLES = {'det': detection_samples, 'seg': segmentation_samples, 'pose': pose_samples}
