"""Parameters and FLOPs of a config by the published counting, per component and per stage.

FLOPs are multiply-adds of convolutions, linear layers and attention's matrix products. Those of
detectors are at 800 x 1280, box heads on 1,000 boxes and mask heads on 100, of segmentors at
512 x 2048 with auxiliary heads, of recognizers of all views of a video. Nothing is computed but
shapes (meta device).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.analysis.layouts import Layout, backbone_settings
from mmuniformer.analysis.metafile import find_model
from mmuniformer.apis.config import clip_views, framework_of, test_image_size
from mmuniformer.apis.models import build_model
from mmuniformer.errors import UserError
from mmuniformer.models.base import StagedBackbone

SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
"""Image height and width of the published figures, by framework; of others it is the config's."""
BOXES, MASKED_BOXES = 1000, 100
TOLERANCE = 0.01
"""How far a published figure may be off, as a part of it and not in its last digit, to count as
reproduced."""
MAP_HEADS = ('rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head', 'head', 'cls_head')
"""Attributes of the frameworks' models that take the maps of backbone and neck."""
CLASS_TOKEN = {3: ('cls_token',), 4: ('cls_upsample',)}
"""Parts of a light network's stages, counted from 1, for the class token."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A model or a component of one, and what it costs."""

    name: str
    """Name of the attribute in the model, or of the stage."""
    params: int
    flops: int
    """Multiply-adds for one image, or one video."""
    parts: tuple[Part, ...] = ()


def complexity(
    cfg: Config, shape: tuple[int, int] | None = None, model: nn.Module | None = None
) -> Part:
    """Count a config's parameters and FLOPs at an image height and width, by default as published.

    ``model`` is the config's on the meta device, if it cannot be built there.

    Raises:
        UserError: The config names no model, or ``shape`` is needed and missing or too small.
    """
    model = model or build_model(cfg, device='meta')
    channels = backbone_settings(cfg).get('in_channels', 3)
    frames, views = clip_views(cfg) or (None, 1)
    size = (frames, *(shape or published_shape(cfg)))[frames is None :]
    images = torch.empty(views, channels, *size, device='meta')
    parts = tuple(count_components(model, images))
    params = count_params(model)
    rest = params - sum(part.params for part in parts)
    if rest:
        parts += (Part('other (not run)', rest, 0),)
    return Part('total', params, sum(part.flops for part in parts), parts)


def published_shape(cfg: Config) -> tuple[int, int]:
    """Return the image height and width that the task's FLOPs are published at."""
    return SHAPES.get(framework_of(cfg)) or test_image_size(cfg)


def count_params(module: nn.Module) -> int:
    """Count the parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_components(model: nn.Module, images: Tensor) -> Iterator[Part]:
    """Count the components of a detector, segmentor, pose estimator or bare backbone."""
    if not hasattr(model, 'backbone'):
        yield count_backbone(model, images)[1]
        return
    maps, part = count_backbone(model.backbone, images)
    yield part
    if getattr(model, 'neck', None) is not None:
        maps, part = count_module('neck', model.neck, maps)
        yield part
    for name in MAP_HEADS:
        for path, head in named_members(model, name):
            yield count_module(path, head, maps)[1]
    roi_head = getattr(model, 'roi_head', None)
    for kind, boxes in (('bbox', BOXES), ('mask', MASKED_BOXES)):
        for name, head in named_members(roi_head, f'{kind}_head'):
            extractor = named_members(roi_head, f'{kind}_roi_extractor')[0][1]
            size = extractor.roi_layers[0].output_size
            features = images.new_empty(boxes, extractor.out_channels, *size)
            yield count_module(f'roi_head.{name}', head, features)[1]


def named_members(owner: nn.Module | None, name: str) -> list[tuple[str, nn.Module]]:
    """Return an attribute as named modules: none, one, or all of a list."""
    member = getattr(owner, name, None)
    if isinstance(member, nn.ModuleList):
        return [(f'{name}.{index}', module) for index, module in enumerate(member)]
    return [] if member is None else [(name, member)]


def run(
    module: nn.Module, inputs: Any, watched: Mapping[str, nn.Module]
) -> tuple[Any, int, dict[str, list[int]]]:
    """Return a module's outputs, its multiply-adds, and their totals around parts of it.

    Hooks read the counter's total: its own figures of modules are absent in PyTorch below 2.3.
    """
    totals, hooks = {name: [] for name in watched}, []
    # The counter trips over views of parameters that are made without gradients (class tokens).
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        for name, part in watched.items():

            def note(*_: Any, totals: list[int] = totals[name]) -> None:
                # The counter's unit is one multiplication or one addition.
                totals.append(counter.get_total_flops() // 2)

            hooks += [part.register_forward_pre_hook(note), part.register_forward_hook(note)]
        outputs = module(inputs)
    for hook in hooks:
        hook.remove()
    return outputs, counter.get_total_flops() // 2, totals


def count_module(name: str, module: nn.Module, inputs: Any) -> tuple[Any, Part]:
    """Run a module and return its outputs and its cost."""
    outputs, flops, _ = run(module, inputs, {})
    return outputs, Part(name, count_params(module), flops)


def count_backbone(backbone: nn.Module, images: Tensor) -> tuple[tuple[Tensor, ...], Part]:
    """Run a backbone; the cost of one of ours is split into stages and their parts."""
    if not isinstance(backbone, StagedBackbone):
        return count_module('backbone', backbone, images)
    called = ('patch_embed', 'cls_upsample')
    watched = {name: part for name, part in backbone.named_children() if name.startswith(called)}
    try:
        maps, total, spans = run(backbone, images, watched)
    except ValueError as error:
        raise UserError(f'--shape: {error}') from error
    stages = []
    for stage in range(1, backbone.num_stages + 1):
        start, _ = spans[f'patch_embed{stage}']
        end, _ = spans.get(f'patch_embed{stage + 1}', (total, total))
        blocks = f'blocks{stage}'
        names = (f'patch_embed{stage}', *CLASS_TOKEN.get(stage, ()), blocks, f'norm{stage}')
        members = {name: getattr(backbone, name) for name in names if hasattr(backbone, name)}
        flops = {name: spans[name][1] - spans[name][0] if name in spans else 0 for name in members}
        # What remains: blocks may run by their lines, without a call of their own.
        flops[blocks] = end - start - sum(flops.values())
        params = {
            name: member.numel() if isinstance(member, Tensor) else count_params(member)
            for name, member in members.items()
        }
        parts = tuple(Part(name, params[name], flops[name]) for name in members)
        stages.append(Part(f'stage {stage}', sum(params.values()), end - start, parts))
    return maps, Part('backbone', count_params(backbone), total, tuple(stages))


def find_published(cfg: Config, shape: tuple[int, int], flops: int) -> dict[str, Any] | None:
    """Compare a count with the metafile beside the config, ``flops`` in billions; None without one.

    ``follows`` is whether the figure is known to follow from this count.
    """
    figures = (find_model(cfg.filename, Layout.of(cfg).name) or {}).get('Metadata') or {}
    if 'FLOPs (G)' not in figures or shape != published_shape(cfg):
        return None
    published, follows = float(figures['FLOPs (G)']), figures.get('FLOPs Reproduced', True)
    difference = flops / 1e9 / published - 1
    digits = len(str(figures['FLOPs (G)']).partition('.')[2])
    close = abs(difference) <= TOLERANCE or round(flops / 1e9, digits) == published
    reproduced = follows and close
    verdict = 'reproduced' if reproduced else 'published, not reproduced'
    return {'flops': published, 'follows': follows, 'verdict': f'{verdict} ({difference:+.1%})'}
