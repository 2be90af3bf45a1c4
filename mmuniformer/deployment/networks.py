"""The network that is exported: from normalized images to plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
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
    """From images ``(B, channels, H, W)`` to the outputs; a copy, changed for the export."""
    expected: Callable[[Tensor], Outputs]
    """The unchanged model as its framework runs it: what the file is compared with."""
    output_names: tuple[str, ...]
    channels: int
    detects: bool = False
    """Whether the outputs are detections, which are compared by matching."""


class BackboneMaps(nn.Module):
    """An image to the feature maps of a backbone."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone = find_backbone(model)[1]

    def forward(self, image: Tensor) -> Outputs:
        """Return a map for each of the backbone's ``out_indices``."""
        return self.backbone(image)


class SegmentorLogits(nn.Module):
    """An image to the logits of its pixels, ``(B, classes, H, W)``."""

    def __init__(self, segmentor: nn.Module):
        super().__init__()
        self.segmentor = segmentor

    def forward(self, image: Tensor) -> Outputs:
        """Return logits at the size of the image."""
        head = self.segmentor.decode_head
        logits = head(self.segmentor.extract_feat(image))
        size = image.shape[2:]
        return (F.interpolate(logits, size, mode='bilinear', align_corners=head.align_corners),)


class PoseHeatmaps(nn.Module):
    """A person's crop to heatmaps, ``(B, keypoints, H / 4, W / 4)``."""

    def __init__(self, estimator: nn.Module):
        super().__init__()
        self.estimator = estimator

    def forward(self, image: Tensor) -> Outputs:
        """Return heatmaps of the crop, without a flip test."""
        return (self.estimator.head(self.estimator.extract_feat(image)),)


def is_detector(cfg: Config, backbone_only: bool) -> bool:
    """Return whether a whole detector is exported."""
    return framework_of(cfg) == 'mmdet' and not backbone_only and 'backbone' in cfg.model


def make_target(
    cfg: Config, model: nn.Module, backbone_only: bool, shape: tuple[int, int]
) -> Target:
    """Choose what of a model is exported, and fold its backbone.

    Args:
        cfg: The model's config.
        model: In evaluation mode; it is not changed.
        backbone_only: Leave neck and heads out.
        shape: Height and width of the images that a detector takes.

    Raises:
        UserError: Models of this kind cannot be exported.
    """
    kind, names, expected = describe(cfg, model, backbone_only, shape)
    network = kind(copy.deepcopy(model))
    _, backbone = find_backbone(network)
    backbone.switch_to_deploy()
    make_exportable(network)
    detects = is_detector(cfg, backbone_only)
    return Target(network.eval(), expected, names, backbone.in_channels, detects)


def describe(
    cfg: Config, model: nn.Module, backbone_only: bool, shape: tuple[int, int]
) -> tuple[Callable[[nn.Module], nn.Module], tuple[str, ...], Callable[[Tensor], Outputs]]:
    """Return the wrapper to export a model in, its output names, and the framework's own call."""
    _, backbone = find_backbone(model)
    if backbone is None:
        raise UserError('cannot export the model: it has no backbone of mmuniformer')
    if backbone_only or backbone is model:
        return BackboneMaps, tuple(f'stage{stage + 1}' for stage in backbone.out_indices), backbone
    framework = framework_of(cfg)
    if is_detector(cfg, backbone_only):
        from mmuniformer.deployment import detector

        return (
            lambda model: detector.Detections(model, shape),
            detector.OUTPUT_NAMES,
            lambda image: detector.detect(model, image),
        )
    if framework == 'mmseg' and isinstance(getattr(model, 'decode_head', None), nn.Module):
        return SegmentorLogits, ('logits',), lambda image: (segment(model, image),)
    if framework == 'mmpose' and hasattr(model, 'head'):
        return PoseHeatmaps, ('heatmaps',), PoseHeatmaps(model)
    raise UserError(
        f'cannot export a whole {type(model).__name__}: export its backbone with --backbone-only'
    )


def segment(model: nn.Module, image: Tensor) -> Tensor:
    """Return a segmentor's logits as MMSegmentation computes them."""
    return model.encode_decode(image, [{'img_shape': tuple(image.shape[2:])}])


def make_exportable(network: nn.Module) -> None:
    """Replace, in place, layers whose sizes tracing would fix to those of its example."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                module.add_module(name, AdaptiveAverage(child.output_size))
            elif type(child).__name__ == 'Upsample' and getattr(child, 'scale_factor', None):
                module.add_module(name, Upsample(child))


class AdaptiveAverage(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as matrix products: ONNX has none for dynamic sizes."""

    def __init__(self, sides: int | tuple[int, int]):
        super().__init__()
        self.sides = (sides, sides) if isinstance(sides, int) else sides

    def forward(self, x: Tensor) -> Tensor:
        """Average a map into the given sides."""
        rows, columns = (
            bin_weights(side, length, x)
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


class Upsample(nn.Module):
    """MMSegmentation's ``Upsample`` by an integer factor, with dynamic sizes."""

    def __init__(self, upsample: nn.Module):
        super().__init__()
        factor = upsample.scale_factor
        self.factors = [int(f) for f in (factor if isinstance(factor, tuple) else (factor,) * 2)]
        self.mode, self.align_corners = upsample.mode, upsample.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the sides of a map."""
        size = [side * factor for side, factor in zip(x.shape[2:], self.factors, strict=True)]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)
