"""Parameters and FLOPs of a config by the published counting, per component and per stage.

FLOPs here are multiply-adds: convolutions, linear layers and the matrix products of attention,
without softmax and norms. The published figures of detectors are at 800 x 1280, with box heads on
1,000 boxes and mask heads on 100; those of segmentors at 512 x 2048, auxiliary heads included;
those of pose estimators at their input size. Nothing is computed but shapes (meta device).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.analysis.metafile import load_models
from mmuniformer.apis.models import build_model
from mmuniformer.errors import UserError
from mmuniformer.models.base import StagedBackbone

SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
"""Image height and width of the published figures; that of a pose estimator is its config's."""
BOXES, MASKED_BOXES = 1000, 100
TOLERANCE = 0.01
"""How far a published figure may be off, as a part of it, to count as reproduced."""
FLOPS_KEY, FOLLOWS_KEY = 'FLOPs (G)', 'FLOPs Reproduced'
LAYOUT_OPTIONS = {'model.backbone.stage3_attn', 'model.backbone.window_size'}
MAP_HEADS = ('rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head', 'head')
"""Attributes of the frameworks' models that take the maps of backbone and neck."""
STAGE_PARTS = ('patch_embed{}', 'cls_token', 'cls_upsample', 'blocks{}', 'norm{}')
CLASS_TOKEN_STAGE = {'cls_token': 3, 'cls_upsample': 4}


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a model and what it costs."""

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
    shape = shape or published_shape(cfg)
    if shape is None:
        raise UserError('the config does not tell the size of images: give --shape HEIGHT WIDTH')
    model = build_model(cfg, device='meta')
    channels = cfg.model.get('backbone', cfg.model).get('in_channels', 3)
    parts = tuple(count_model(model, torch.empty(1, channels, *shape, device='meta')))
    params = count_params(model)
    rest = params - sum(part.params for part in parts)
    if rest:
        parts += (Part('other (not run)', rest, 0),)
    return Complexity(tuple(shape), params, sum(part.flops for part in parts), parts)


def published_shape(cfg: Config) -> tuple[int, int] | None:
    """Return the image height and width that the task's published FLOPs are given at, if any."""
    scope = cfg.get('default_scope')
    if scope == 'mmpose' and 'input_size' in cfg.get('codec', {}):
        width, height = cfg.codec.input_size
        return height, width
    return SHAPES.get(scope)


def count_params(module: nn.Module) -> int:
    """Count the parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def run(module: nn.Module, inputs: Any) -> tuple[Any, Mapping[str, int]]:
    """Run a module and count its multiply-adds.

    Returns:
        The outputs, and the multiply-adds of it (by its class's name) and each module below (by
        dotted names).
    """
    # The counter trips over views of parameters that are made without gradients (class tokens).
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        outputs = module(inputs)
    # The counter's unit is one multiplication or one addition.
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    return outputs, counts


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
    outputs, counts = run(module, inputs)
    return outputs, Part(name, count_params(module), counts.get('Global', 0))


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
    """Run a backbone; the cost of one of ours is told by stage."""
    if not isinstance(backbone, StagedBackbone):
        return count_module(name, backbone, images)
    try:
        maps, counts = run(backbone, images)
    except ValueError as error:
        raise UserError(f'--shape: {error}') from error
    counts = {key.partition('.')[2]: value for key, value in counts.items()}
    stages = tuple(count_stage(backbone, stage + 1, counts) for stage in range(backbone.num_stages))
    # The counter's name for the whole has no dot, so that nothing is left of it.
    return maps, Part(name, count_params(backbone), sum(s.flops for s in stages), stages)


def count_stage(backbone: StagedBackbone, stage: int, counts: Mapping[str, int]) -> Part:
    """Split a stage, counted from 1, into embedding, blocks and output norm."""
    parts = []
    for template in STAGE_PARTS:
        name = template.format(stage)
        member = getattr(backbone, name, None)
        if member is None or CLASS_TOKEN_STAGE.get(name, stage) != stage:
            continue
        params = member.numel() if isinstance(member, Tensor) else count_params(member)
        # A list of blocks is not called itself.
        flops = sum(
            value
            for key, value in counts.items()
            if key == name or (key.rpartition('.')[0] == name and isinstance(member, nn.ModuleList))
        )
        parts.append(Part(name, params, flops))
    total = [sum(part.params for part in parts), sum(part.flops for part in parts)]
    return Part(f'stage {stage}', *total, tuple(parts))


class Published(NamedTuple):
    """What the metafile says of a config in one layout."""

    flops: float
    """In billions of multiply-adds."""
    follows: bool
    """Whether the figure is known to follow from this count."""


def find_published(file: Path, cfg: Config) -> Published | None:
    """Look a config up in the metafile beside it, in the row of its test layout.

    Returns:
        None if there is no metafile, or none of its rows has FLOPs for the config.
    """
    metafile = file.with_name('metafile.yml')
    if not metafile.is_file():
        return None
    for model in load_models(metafile):
        figures = model['Metadata']
        is_row = Path(model['Config']).name == file.name
        if is_row and figures.get('Test Layout') in (None, layout(cfg)) and FLOPS_KEY in figures:
            return Published(float(figures[FLOPS_KEY]), figures.get(FOLLOWS_KEY, True))
    return None


def layout(cfg: Config) -> str:
    """Name the layout of stage 3 as the published tables do: global, w32, h14; or hourglass."""
    backbone = cfg.model.backbone
    if backbone.type.endswith('UniFormerLight'):
        return 'hourglass'
    kind = backbone.get('stage3_attn', 'global')
    if kind in ('window', 'hybrid'):
        return f'{kind[0]}{backbone.get("window_size", 14)}'
    return str(kind)


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
