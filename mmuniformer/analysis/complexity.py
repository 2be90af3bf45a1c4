"""Parameters and FLOPs of a config by the published counting, per component and per stage.

FLOPs here are multiply-adds: convolutions, linear layers and the matrix products of attention,
without softmax and norms. The published figures of detectors are at 800 x 1280, with box heads on
1,000 boxes and mask heads on 100; those of segmentors at 512 x 2048, auxiliary heads included;
those of pose estimators at their input size. Nothing is computed but shapes (meta device).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.analysis.layouts import Layout
from mmuniformer.analysis.metafile import find_model
from mmuniformer.apis.config import framework_of, test_image_size
from mmuniformer.apis.models import build_model
from mmuniformer.errors import UserError
from mmuniformer.models.base import StagedBackbone

SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
"""Image height and width of the published figures, by framework; of others it is the config's."""
BOXES, MASKED_BOXES = 1000, 100
TOLERANCE = 0.01
"""How far a published figure may be off, as a part of it, to count as reproduced."""
LAYOUT_OPTIONS = {'model.backbone.stage3_attn', 'model.backbone.window_size'}
MAP_HEADS = ('rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head', 'head')
"""Attributes of the frameworks' models that take the maps of backbone and neck."""
STAGE_PARTS = ('patch_embed{}', 'cls_token', 'cls_upsample', 'blocks{}', 'norm{}')
CALLED = ('patch_embed', 'cls_upsample')
"""Parts of ours outside the blocks that multiply."""
CLASS_TOKEN_STAGE = {'cls_token': 3, 'cls_upsample': 4}


@dataclasses.dataclass(frozen=True)
class Part:
    """A component of a model and what it costs."""

    name: str
    """Name of the attribute in the model, or of the stage."""
    params: int
    flops: int
    """Multiply-adds for one image."""
    parts: tuple[Part, ...] = ()


@dataclasses.dataclass(frozen=True)
class Complexity:
    """What a model costs at an image ``shape`` (height, width)."""

    shape: tuple[int, int]
    params: int
    flops: int
    """Multiply-adds for one image."""
    parts: tuple[Part, ...]


def complexity(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Count a config's parameters and FLOPs.

    Args:
        cfg: Config of a detector, segmentor or pose estimator.
        shape: Image height and width; None takes that of the published figures.

    Raises:
        UserError: The config names no model, or ``shape`` is needed and missing or too small.
    """
    if 'model' not in cfg:
        raise UserError('the config has no `model`')
    shape = shape or published_shape(cfg)
    model = build_model(cfg, device='meta')
    channels = cfg.model.get('backbone', cfg.model).get('in_channels', 3)
    parts = tuple(count_model(model, torch.empty(1, channels, *shape, device='meta')))
    params = count_params(model)
    rest = params - sum(part.params for part in parts)
    if rest:
        parts += (Part('other (not run)', rest, 0),)
    return Complexity(tuple(shape), params, sum(part.flops for part in parts), parts)


def published_shape(cfg: Config) -> tuple[int, int]:
    """Return the image height and width that the task's FLOPs are published at.

    Raises:
        UserError: They are published at the size of each config, and this one does not state it.
    """
    return SHAPES.get(framework_of(cfg)) or test_image_size(cfg)


def count_params(module: nn.Module) -> int:
    """Count the parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def run(
    module: nn.Module, inputs: Any, watched: Mapping[str, nn.Module] = MappingProxyType({})
) -> tuple[Any, int, dict[str, list[int]]]:
    """Run a module and count its multiply-adds.

    Hooks read the counter's total: its own figures of modules are absent in PyTorch below 2.3.

    Returns:
        The outputs, the multiply-adds, and the total before and after each watched module inside.
    """
    spans, hooks = {name: [] for name in watched}, []
    # The counter trips over views of parameters that are made without gradients (class tokens).
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        for name, part in watched.items():

            def note(*_: Any, span: list[int] = spans[name]) -> None:
                # The counter's unit is one multiplication or one addition.
                span.append(counter.get_total_flops() // 2)

            hooks += [part.register_forward_pre_hook(note), part.register_forward_hook(note)]
        outputs = module(inputs)
    for hook in hooks:
        hook.remove()
    return outputs, counter.get_total_flops() // 2, spans


def count_model(model: nn.Module, images: Tensor) -> Iterator[Part]:
    """Count the components of a detector, segmentor, pose estimator or bare backbone."""
    if isinstance(model, StagedBackbone):
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
    if getattr(model, 'roi_head', None) is not None:
        yield from count_roi_head(model.roi_head, images.device)


def named_members(owner: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """Return an attribute as named modules: none, one, or all of a list."""
    member = getattr(owner, name, None)
    if member is None:
        return []
    if isinstance(member, nn.ModuleList):
        return [(f'{name}.{index}', module) for index, module in enumerate(member)]
    return [(name, member)]


def count_module(name: str, module: nn.Module, inputs: Any) -> tuple[Any, Part]:
    """Run a module and return its outputs and its cost."""
    outputs, flops, _ = run(module, inputs)
    return outputs, Part(name, count_params(module), flops)


def count_roi_head(roi_head: nn.Module, device: torch.device) -> Iterator[Part]:
    """Count the box heads on 1,000 boxes each and the mask heads on 100."""
    for kind, boxes in (('bbox', BOXES), ('mask', MASKED_BOXES)):
        extractors = named_members(roi_head, f'{kind}_roi_extractor')
        for name, head in named_members(roi_head, f'{kind}_head'):
            extractor = extractors[0][1]
            size = extractor.roi_layers[0].output_size
            features = torch.empty(boxes, extractor.out_channels, *size, device=device)
            yield count_module(f'roi_head.{name}', head, features)[1]


def count_backbone(
    backbone: nn.Module, images: Tensor, name: str = 'backbone'
) -> tuple[tuple[Tensor, ...], Part]:
    """Run a backbone; the cost of one of ours is split into stages."""
    if not isinstance(backbone, StagedBackbone):
        return count_module(name, backbone, images)
    watched = {key: part for key, part in backbone.named_children() if key.startswith(CALLED)}
    try:
        maps, flops, spans = run(backbone, images, watched)
    except ValueError as error:
        raise UserError(f'--shape: {error}') from error
    stages = range(1, backbone.num_stages + 1)
    starts = [spans[f'patch_embed{stage}'][0] for stage in stages] + [flops]
    parts = tuple(
        count_stage(backbone, stage, starts[stage] - starts[stage - 1], spans) for stage in stages
    )
    return maps, Part(name, count_params(backbone), flops, parts)


def count_stage(
    backbone: StagedBackbone, stage: int, flops: int, spans: Mapping[str, list[int]]
) -> Part:
    """Split a stage, counted from 1, into embedding, class token, blocks and output norm."""
    parts = {}
    for template in STAGE_PARTS:
        name = template.format(stage)
        member = getattr(backbone, name, None)
        if member is None or CLASS_TOKEN_STAGE.get(name, stage) != stage:
            continue
        params = member.numel() if isinstance(member, Tensor) else count_params(member)
        start, end = spans.get(name, (0, 0))
        parts[name] = Part(name, params, end - start)
    blocks = f'blocks{stage}'
    # All but the embeddings: blocks may run by their lines, without a call of their own.
    rest = flops - sum(part.flops for part in parts.values())
    parts[blocks] = dataclasses.replace(parts[blocks], flops=rest)
    params = sum(part.params for part in parts.values())
    return Part(f'stage {stage}', params, flops, tuple(parts.values()))


class Published(NamedTuple):
    """What the metafile states of a config in one layout."""

    flops: float
    """In billions of multiply-adds."""
    follows: bool
    """Whether the figure is known to follow from this count."""


def find_published(cfg: Config, shape: tuple[int, int]) -> Published | None:
    """Return a config's figure in the metafile beside it; None if it has none at this size."""
    figures = (find_model(cfg.filename, Layout.of(cfg).name) or {}).get('Metadata', {})
    if 'FLOPs (G)' not in figures or shape != published_shape(cfg):
        return None
    return Published(float(figures['FLOPs (G)']), figures.get('FLOPs Reproduced', True))


def verdict(counted: Complexity, published: Published) -> str:
    """Say how a published figure compares."""
    difference = counted.flops / 1e9 / published.flops - 1
    if published.follows and abs(difference) <= TOLERANCE:
        return f'reproduced ({difference:+.1%})'
    return f'published, not reproduced ({difference:+.1%})'


def draw_table(counted: Complexity) -> Table:
    """Lay the cost out by component and stage."""
    table = Table()
    table.add_column('component')
    for header in ('params (M)', 'FLOPs (G)', 'share'):
        table.add_column(header, justify='right')

    def add(part: Part, depth: int) -> None:
        table.add_row(
            '  ' * depth + part.name,
            f'{part.params / 1e6:.3f}',
            f'{part.flops / 1e9:.3f}',
            f'{part.flops / counted.flops:.1%}',
            style='dim' if depth > 1 else None,
        )
        for child in part.parts:
            add(child, depth + 1)

    for part in counted.parts:
        add(part, 0)
    table.add_section()
    add(Part('total', counted.params, counted.flops), 0)
    return table
