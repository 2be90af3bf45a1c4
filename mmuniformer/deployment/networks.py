"""What of a model goes into a file: from normalized images to plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor, nn

from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone

Outputs = tuple[Tensor, ...]


class Target(NamedTuple):
    """What is exported."""

    network: nn.Module
    """From images ``(B, channels, H, W)`` to the outputs; may be changed for the export."""
    expected: Callable[[Tensor], Outputs]
    """The same by the unchanged model, as the framework runs it: what the file is checked with."""
    output_names: tuple[str, ...]
    channels: int
    detects: bool = False
    """Whether the outputs are detections; these are told apart from PyTorch's by matching."""


class BackboneMaps(nn.Module):
    """An image to the maps of a backbone."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

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
    """A person's crop to heat maps, ``(B, key points, H / 4, W / 4)``."""

    def __init__(self, estimator: nn.Module):
        super().__init__()
        self.estimator = estimator

    def forward(self, image: Tensor) -> Outputs:
        """Return heat maps without a second pass over the mirrored image."""
        return (self.estimator.head(self.estimator.extract_feat(image)),)


def is_detector(cfg: Config, backbone_only: bool) -> bool:
    """Tell whether a whole detector is asked for."""
    return cfg.get('default_scope') == 'mmdet' and not backbone_only and 'backbone' in cfg.model


def make_target(
    cfg: Config, model: nn.Module, backbone_only: bool, deploy: bool, shape: tuple[int, int]
) -> Target:
    """Choose what of a model is exported.

    Args:
        cfg: The model's config.
        model: In evaluation mode; it is not changed.
        backbone_only: Whether to leave neck and heads out.
        deploy: Whether the exported copy is folded by ``switch_to_deploy``.
        shape: Height and width of the images that a detector takes.

    Raises:
        UserError: Models of the kind can't be exported.
    """
    kind, names, expected = describe(cfg, model, backbone_only, shape)
    network = kind(copy.deepcopy(model))
    _, backbone = find_backbone(network)
    if deploy:
        backbone.switch_to_deploy()
    make_exportable(network)
    detects = is_detector(cfg, backbone_only)
    return Target(network.eval(), expected, names, backbone.in_channels, detects)


def describe(
    cfg: Config, model: nn.Module, backbone_only: bool, shape: tuple[int, int]
) -> tuple[Callable[[nn.Module], nn.Module], tuple[str, ...], Callable[[Tensor], Outputs]]:
    """Return how to wrap a model, its outputs' names, and how the framework computes them."""
    _, backbone = find_backbone(model)
    if backbone is None:
        raise UserError('the model has no backbone of mmuniformer: there is nothing to export')
    if backbone_only or backbone is model:
        names = tuple(f'stage{stage + 1}' for stage in backbone.out_indices)
        return lambda model: BackboneMaps(find_backbone(model)[1]), names, backbone
    scope = cfg.get('default_scope')
    if is_detector(cfg, backbone_only):
        from mmuniformer.deployment import detector

        names = detector.OUTPUT_NAMES
        return (
            lambda model: detector.Detections(model, shape),
            names,
            lambda image: detector.detect(model, image),
        )
    if scope == 'mmseg' and isinstance(getattr(model, 'decode_head', None), nn.Module):
        return SegmentorLogits, ('logits',), lambda image: (segment(model, image),)
    if scope == 'mmpose' and hasattr(model, 'head'):
        return PoseHeatmaps, ('heatmaps',), PoseHeatmaps(model)
    raise UserError(
        f'a {type(model).__name__} can not be exported as a whole: take its backbone by '
        '--backbone-only'
    )


def segment(model: nn.Module, image: Tensor) -> Tensor:
    """Return a segmentor's logits as mmsegmentation computes them."""
    return model.encode_decode(image, [{'img_shape': tuple(image.shape[2:])}])


def make_exportable(network: nn.Module) -> None:
    """Replace, in place, layers whose sizes an exporter would fix to those of its example."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                module.add_module(name, AdaptiveAverage(child.output_size))
            elif type(child).__name__ == 'Upsample' and getattr(child, 'scale_factor', None):
                module.add_module(name, Enlarge(child))


class AdaptiveAverage(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as matrix products: ONNX has no such pooling of unknown sizes."""

    def __init__(self, sides: int | tuple[int, int]):
        super().__init__()
        self.sides = (sides, sides) if isinstance(sides, int) else sides

    def forward(self, x: Tensor) -> Tensor:
        """Average a map into the given sides."""
        rows, columns = (
            shares(side, length, x) for side, length in zip(self.sides, x.shape[2:], strict=True)
        )
        return rows @ x @ columns.T


def shares(bins: int, length: int, like: Tensor) -> Tensor:
    """Return the weights ``(bins, length)`` by which neighbours are averaged into bins."""
    index = torch.arange(bins, device=like.device).unsqueeze(1)
    place = torch.arange(length, device=like.device)
    start, stop = index * length // bins, ((index + 1) * length + bins - 1) // bins
    inside = (place >= start) & (place < stop)
    return inside.to(like.dtype) / (stop - start).to(like.dtype)


class Enlarge(nn.Module):
    """mmsegmentation's ``Upsample`` by a whole factor, without turning sizes into numbers."""

    def __init__(self, upsample: nn.Module):
        super().__init__()
        factor = upsample.scale_factor
        self.factors = [int(f) for f in (factor if isinstance(factor, tuple) else (factor,) * 2)]
        self.mode, self.align_corners = upsample.mode, upsample.align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the sides."""
        size = [side * factor for side, factor in zip(x.shape[2:], self.factors, strict=True)]
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)
