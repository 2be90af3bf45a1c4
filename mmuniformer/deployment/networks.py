"""The network that is exported: from normalized images or clips to plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mmuniformer.apis.config import framework_of
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone

Outputs = tuple[Tensor, ...]


class Target(NamedTuple):
    """What is exported."""

    network: nn.Module
    """From images ``(B, channels, H, W)`` or clips ``(B, channels, T, H, W)`` to the outputs; a
    copy, changed for the export."""
    expected: Callable[[Tensor], Outputs]
    """The unchanged model as its framework runs it: what the file is compared with."""
    output_names: tuple[str, ...]
    channels: int
    dims: int = 2
    """Axes besides batch and channels: 2 of images, 3 of clips."""


class Network(nn.Module):
    """A model, and the function that computes the outputs with it."""

    def __init__(self, model: nn.Module, compute: Callable[[nn.Module, Tensor], Outputs]):
        super().__init__()
        self.model = model
        self.compute = compute

    def forward(self, image: Tensor) -> Outputs:
        """Return the outputs for images ``(B, C, H, W)`` or clips ``(B, C, T, H, W)``."""
        return self.compute(self.model, image)


def backbone_maps(model: nn.Module, image: Tensor) -> Outputs:
    """Return a map for each of the backbone's ``out_indices``."""
    maps = find_backbone(model)[1](image)
    return (maps,) if isinstance(maps, Tensor) else maps


def segmentor_logits(segmentor: nn.Module, image: Tensor) -> Outputs:
    """Return what ``segment`` does; MMSegmentation's resizing fixes sizes with align_corners."""
    head = segmentor.decode_head
    logits = head(segmentor.extract_feat(image))
    size = image.shape[2:]
    return (F.interpolate(logits, size, mode='bilinear', align_corners=head.align_corners),)


def segment(segmentor: nn.Module, image: Tensor) -> Outputs:
    """Return the logits of an image's pixels, ``(B, classes, H, W)``."""
    return (segmentor.encode_decode(image, [{'img_shape': tuple(image.shape[2:])}]),)


def head_output(model: nn.Module, image: Tensor) -> Outputs:
    """Return what the head gives.

    Of a pose estimator: the heatmaps of a person's crop, ``(B, keypoints, H / 4, W / 4)``,
    unflipped. Of a classifier: the logits of images, ``(B, classes)``.
    """
    return (model.head(model.extract_feat(image)),)


def clip_logits(recognizer: nn.Module, clip: Tensor) -> Outputs:
    """Return the logits of clips, each one view, ``(B, classes)``."""
    return recognizer.extract_feat(clip.unsqueeze(1), stage='head')[:1]


def is_detector(cfg: Config, backbone_only: bool) -> bool:
    """Return whether a whole detector is exported."""
    return framework_of(cfg) == 'mmdet' and not backbone_only and 'backbone' in cfg.get('model', {})


def make_target(
    cfg: Config, model: nn.Module, backbone_only: bool, shape: tuple[int, int]
) -> Target:
    """Choose what of a model in evaluation mode is exported, and fold the backbone of a copy.

    ``shape`` is height and width of the images that a detector takes.
    """
    backbone = find_backbone(model)[1]
    if backbone is None:
        raise UserError('cannot export the model: it has no backbone of mmuniformer')
    framework, copied = framework_of(cfg), copy.deepcopy(model)
    head = getattr(model, 'head', getattr(model, 'cls_head', None))
    kinds = {kind.__name__ for kind in (*type(model).__mro__, *type(head).__mro__)}
    if backbone_only or backbone is model:
        network, reference = Network(copied, backbone_maps), backbone_maps
        names = tuple(f'stage{stage + 1}' for stage in backbone.out_indices)
        if getattr(backbone, 'out_cls_token', False):
            names += ('cls_token',)
    elif is_detector(cfg, backbone_only):
        from mmuniformer.deployment import detector

        network, reference = detector.Detections(copied, shape), detector.detect
        names = detector.OUTPUT_NAMES
    elif framework == 'mmseg' and hasattr(getattr(model, 'decode_head', None), 'align_corners'):
        network, reference, names = Network(copied, segmentor_logits), segment, ('logits',)
    elif framework == 'mmpose' and 'HeatmapHead' in kinds:
        network, reference, names = Network(copied, head_output), head_output, ('heatmaps',)
    elif framework == 'mmpretrain' and kinds >= {'ImageClassifier', 'ClsHead'}:
        network, reference, names = Network(copied, head_output), head_output, ('logits',)
    elif framework == 'mmaction' and 'Recognizer3D' in kinds and kinds & {'I3DHead', 'ClsHead'}:
        network, reference, names = Network(copied, clip_logits), clip_logits, ('logits',)
    else:
        raise UserError(
            f'cannot export a whole {type(model).__name__}: export its backbone with '
            '--backbone-only'
        )
    find_backbone(copied)[1].switch_to_deploy()
    make_exportable(network)
    expected = partial(reference, model)
    return Target(network.eval(), expected, names, backbone.in_channels, backbone.dims)


def make_exportable(network: nn.Module) -> None:
    """Replace, in place, layers whose sizes tracing would fix to those of its example."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                module.add_module(name, AdaptiveAverage(child.output_size))
            elif type(child).__name__ == 'Upsample' and getattr(child, 'scale_factor', None):
                # MMSegmentation's computes the size in Python.
                upsample = nn.Upsample(None, child.scale_factor, child.mode, child.align_corners)
                module.add_module(name, upsample)


class AdaptiveAverage(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as matrix products: ONNX has none for dynamic sizes."""

    def __init__(self, sides: int | tuple[int | None, int | None]):
        super().__init__()
        self.sides = (sides, sides) if isinstance(sides, int) else sides

    def forward(self, x: Tensor) -> Tensor:
        """Average a map into the given sides."""
        rows, columns = (
            bin_weights(side or length, length, x)
            for side, length in zip(self.sides, x.shape[2:], strict=True)
        )
        return rows @ x @ columns.T


def bin_weights(bins: int, length: int, like: Tensor) -> Tensor:
    """Return the weights ``(bins, length)`` that average ``length`` values into bins."""
    index = torch.arange(bins, device=like.device).unsqueeze(1)
    place = torch.arange(length, device=like.device)
    start, stop = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (place >= start) & (place < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)
