"""What is known of released weight files: their names, their contents, the networks in them.

Facts and pure functions on state dicts; ``checkpoints`` reads files and loads models with them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from torch import Tensor

from mmuniformer.errors import CheckpointError
from mmuniformer.models.arch import NUM_STAGES, UNIFORMER, UNIFORMER_LIGHT, Arch

WRAPPERS = ('state_dict', 'model')
"""Keys under which a file may nest its weights; some files nest nothing."""

PARALLEL_PREFIX = 'module.'
BACKBONE_PREFIX = 'backbone.'

UNUSED_PARTS = ('head', 'norm', 'aux_head', 'head_cls', 'norm_cls')
"""Classifiers and their norms in ImageNet files; the last two in hourglass files only."""

RENAMED_PARTS = {'keypoint_head.': 'head.'}
"""Names of the frameworks before mmengine, and what they are today."""

PART_STAGES = {f'{part}{s}': s for s in range(1, 5) for part in ('patch_embed', 'blocks', 'norm')}
PART_STAGES |= {'cls_token': 3, 'cls_upsample': 4}
"""The stage (from 1) that each part of a backbone belongs to."""

OUTPUT_NORMS = ('norm1', 'norm2', 'norm3', 'norm4')
"""New in dense prediction: ImageNet files lack them."""

UNUSED_COUNTER = '.num_batches_tracked'
"""A BatchNorm counter that no result depends on; some tools drop it."""

HEAD_DIM_BY_NAME = (
    (r'dim[-_]?(?P<dim>28|32|64)(?!\d)', None),
    (r'large', 64),
    (r'(^|[-_.])tl([-_.]|$)|token[-_]?label', 32),
    (r'small[-_]plus', 32),
    (r'(small|base)([-_]ls)?[-_]in1k', 64),
)
"""What a file's name tells of head_dim: first fit; None takes the number in the name.

The released names are ``uniformer_{small,small_plus,base}_tl_{224,384}`` (32), the same with
``_dim64`` (64), ``uniformer_large_ls_tl_*`` (64), ``uniformer_{small,base,base_ls}_in1k`` (64),
``uniformer_small_plus_in1k`` (32) and ``uniformer_small_plus_dim64_in1k`` (64).
"""


@dataclass(frozen=True)
class Anatomy:
    """What names and shapes tell of a network: one entry a stage, None where a stage is absent."""

    hourglass: bool
    embed_dims: tuple[int | None, ...]
    depths: tuple[int | None, ...]
    conv_stem: tuple[bool | None, ...]
    mlp_ratios: tuple[float | None, ...]
    layer_scale: tuple[bool | None, ...]
    in_channels: tuple[int | None, ...]

    def differences(self, other: Anatomy) -> list[str]:
        """Return the fields in which two networks differ on the stages that both have."""
        return [
            field.name
            for field in fields(self)
            if not agree(getattr(self, field.name), getattr(other, field.name))
        ]

    def describe(self, names: Iterable[str]) -> str:
        """Write some fields, most of them as constructor arguments."""
        return ', '.join(self.describe_field(name) for name in names)

    def describe_field(self, name: str) -> str:
        """Write one field."""
        value = getattr(self, name)
        if name == 'hourglass':
            return 'a class token' if value else 'no class token'
        if name == 'layer_scale':
            stages = [str(stage) for stage, has in enumerate(value, 1) if has]
            where = f'in stages {", ".join(stages)}' if stages else 'nowhere'
            return f'LayerScale (gamma_1, gamma_2) {where}'
        return f'{name}={value[0] if len(value) == 1 else value}'


def agree(ours: Any, theirs: Any) -> bool:
    """Compare two fields; a None on either side says nothing."""
    if not isinstance(ours, tuple):
        return ours == theirs
    return all(a == b for a, b in zip(ours, theirs, strict=True) if None not in (a, b))


def anatomy(state: Mapping[str, Tensor]) -> Anatomy:
    """Read the network off a backbone's names and shapes."""
    stages = [stage_anatomy(state, stage) for stage in range(1, NUM_STAGES + 1)]
    stem = stem_weight(state)
    return Anatomy(
        'cls_token' in state or 'cls_upsample.weight' in state,
        *zip(*stages, strict=True),
        in_channels=(None if stem is None else stem.shape[1],),
    )


def stem_weight(state: Mapping[str, Tensor]) -> Tensor | None:
    """Return the kernel of the first convolution of a backbone, or None: it is no backbone."""
    for name in ('patch_embed1.proj.weight', 'patch_embed1.proj.0.weight'):
        if name in state and state[name].ndim > 1:
            return state[name]
    return None


def stage_anatomy(state: Mapping[str, Tensor], stage: int) -> tuple[Any, ...]:
    """Return a stage's width, depth, conv stem, FFN ratio and LayerScale; stages from 1."""
    start = f'blocks{stage}.'
    blocks = {key.split('.')[1] for key in state if key.startswith(start)}
    if not blocks:
        return (None,) * 5
    position = state.get(f'{start}0.pos_embed.bias')
    hidden = state.get(f'{start}0.mlp.fc1.bias')
    dim = None if position is None else position.numel()
    ratio = hidden.numel() / dim if dim and hidden is not None else None
    conv_stem = f'patch_embed{stage}.proj.0.weight' in state
    return dim, len(blocks), conv_stem, ratio, f'{start}0.gamma_1' in state


def preset_anatomy(arch: Arch, hourglass: bool) -> Anatomy:
    """Return what a preset's weights look like."""
    scale = tuple(value > 0 for value in arch.layer_scale_init_value)
    return Anatomy(
        hourglass, arch.embed_dims, arch.depths, arch.conv_stem, arch.mlp_ratios, scale, (None,)
    )


def guess_preset(found: Anatomy) -> tuple[str, str] | None:
    """Return the class and the preset that have this anatomy, or None.

    ``small`` also stands for its token-labelled form, which looks the same.
    """
    for kind, presets in (('UniFormer', UNIFORMER), ('UniFormerLight', UNIFORMER_LIGHT)):
        for name, arch in presets.items():
            if not found.differences(preset_anatomy(arch, kind == 'UniFormerLight')):
                return kind, name
    return None


def weights_of(raw: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """Return a file's tensors by name: unwrapped, without a parallel wrapper's prefix."""
    _, nested = unwrap(raw)
    state = OrderedDict((str(k), v) for k, v in nested.items() if isinstance(v, Tensor))
    if is_parallel(state):
        state = OrderedDict((key.removeprefix(PARALLEL_PREFIX), v) for key, v in state.items())
    return state


def unwrap(raw: Mapping[str, Any]) -> tuple[list[str], Mapping[str, Any]]:
    """Return the keys that lead to a file's weights, and what is there."""
    path = []
    while key := next((k for k in WRAPPERS if isinstance(raw.get(k), Mapping)), None):
        path.append(key)
        raw = raw[key]
    return path, raw


def is_parallel(names: Iterable[str]) -> bool:
    """Tell whether all names carry a parallel wrapper's prefix."""
    return all(str(name).startswith(PARALLEL_PREFIX) for name in names)


def backbone_state(raw: Mapping[str, Any], prefix: str | None = None) -> OrderedDict[str, Tensor]:
    """Return the backbone's tensors of a file, by the backbone's own names.

    Args:
        raw: What the file holds: weights, bare or nested, of a backbone or a whole model.
        prefix: Where in a whole model the backbone is; ``backbone`` by default.

    Raises:
        CheckpointError: Nothing has the ``prefix`` that was asked for.
    """
    state = weights_of(raw)
    start = (prefix or BACKBONE_PREFIX).rstrip('.') + '.'
    inner = OrderedDict((k.removeprefix(start), v) for k, v in state.items() if k.startswith(start))
    if prefix and not inner:
        raise CheckpointError(
            f'no name in the checkpoint starts with prefix={start!r}; names start with '
            f'{", ".join(parts(state))}: leave prefix out or correct it'
        )
    return inner or state


def parts(names: Iterable[str], limit: int = 12) -> list[str]:
    """Return the first components of dotted names, each once, in order."""
    seen = list(dict.fromkeys(name.partition('.')[0] for name in names))
    return seen[:limit] + ['...'] * (len(seen) > limit)


def file_name(source: str) -> str:
    """Return the last part of a path or URL."""
    return PurePosixPath(urlparse(str(source)).path.replace('\\', '/')).name or str(source)


def head_dim_by_name(source: str) -> int | None:
    """Return the head_dim that a file's name tells, or None."""
    name = file_name(source).lower()
    for pattern, dim in HEAD_DIM_BY_NAME:
        if found := re.search(pattern, name):
            return dim or int(found['dim'])
    return None


def recorded_head_dim(raw: Mapping[str, Any]) -> int | None:
    """Return the head_dim that mmuniformer wrote into a file's meta, or None."""
    meta = raw.get('meta')
    ours = meta.get('mmuniformer') if isinstance(meta, Mapping) else None
    return ours.get('head_dim') if isinstance(ours, Mapping) else None
