"""What is known of released weight files: their names, their layouts, the networks in them.

Facts and pure functions on state dicts; ``files`` reads them and ``load`` fills models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from torch import Tensor

from mmuniformer.errors import CheckpointError
from mmuniformer.models.arch import NUM_STAGES, UNIFORMER, UNIFORMER_LIGHT

WRAPPERS = ('state_dict', 'model', 'model_state')
"""Keys under which a file may nest its weights; some files nest nothing."""

MAX_NESTING = 4
"""Wrappers in wrappers, after which a file is no checkpoint."""

PARALLEL_PREFIX = 'module.'
BACKBONE_PREFIX = 'backbone.'

UNUSED_PARTS = ('head', 'norm', 'aux_head', 'head_cls', 'norm_cls')
"""Classifiers and their norms in ImageNet files; the last two in hourglass files only."""

RENAMED_PARTS = {'keypoint_head.': 'head.'}
"""Names of parts before mmengine, and the current ones."""

PART_STAGES = {f'{part}{s}': s for s in range(1, 5) for part in ('patch_embed', 'blocks', 'norm')}
PART_STAGES |= {'cls_token': 3, 'cls_upsample': 4}
"""The stage (from 1) that each part of a backbone belongs to."""

OUTPUT_NORMS = ('norm1', 'norm2', 'norm3', 'norm4', 'norm')
"""Of dense prediction, and the last of classification: files of the other kind lack them."""

SPLIT_PARTS = ('t_norm', 't_attn')
"""New in blocks that split space and time; they start as nothing."""

CLASSIFIER_LAYERS = {
    'head': ('head.fc', 'cls_head.fc_cls', 'cls_head.fc'),
    'aux_head': ('head.aux_fc',),
    'norm_cls': ('head.norm_cls', 'cls_head.norm_cls'),
    'head_cls': ('head.token_fc', 'cls_head.token_fc'),
}
"""Classifiers' layers by released names: their names in models of mmpretrain and mmaction2."""

UNUSED_COUNTER = '.num_batches_tracked'
"""A BatchNorm counter that no result depends on; some tools drop it."""

HEAD_DIM_BY_NAME = (
    (r'dim[-_]?(?P<dim>28|32|64)(?!\d)', None),
    (r'uniformer[-_]large', 64),
    (r'(^|[-_.])tl([-_.]|$)|token[-_]?label', 32),
    (r'small[-_]plus', 32),
    (r'(small|base)([-_]ls)?[-_](in1k|imagenet1k|k[46]00|(ss|sth)v[12]|ucf101|hmdb51)', 64),
)
"""What a file's name tells of head_dim: first fit; None takes the number in the name.

The released names are ``uniformer_{small,small_plus,base}_tl_{224,384}`` (32), the same with
``_dim64`` (64), ``uniformer_large_ls_tl_*`` (64), ``uniformer_{small,base,base_ls}_in1k`` (64),
``uniformer_small_plus_in1k`` (32) and ``uniformer_small_plus_dim64_in1k`` (64); for clips
``uniformer_{small,base}_{k400,k600,ssv1,ssv2}_*`` (64).
"""


@dataclass(frozen=True)
class NetworkSpec:
    """What keys and shapes tell of a network: one entry a stage, None where a stage is absent."""

    hourglass: tuple[bool | None]
    """Whether there is a class token, from stage 3 on."""
    embed_dims: tuple[int | None, ...]
    depths: tuple[int | None, ...]
    conv_stem: tuple[bool | None, ...]
    mlp_ratios: tuple[float | None, ...]
    layer_scale: tuple[bool | None, ...]
    in_channels: tuple[int | None]
    dims: tuple[int | None]
    """Axes of the kernels: 2 for images, 3 for clips."""

    def differences(self, other: NetworkSpec) -> list[str]:
        """Return the fields in which two networks differ on the stages that both have."""
        return [
            name
            for name, ours in vars(self).items()
            if any(
                mine != yours
                for mine, yours in zip(ours, getattr(other, name), strict=True)
                if None not in (mine, yours)
            )
        ]

    def describe(self, names: Iterable[str]) -> str:
        """Write some fields, most of them as constructor arguments."""
        texts = []
        for name in names:
            value = getattr(self, name)
            if name == 'dims':
                texts.append(f'{value[0]}-D convolutions')
            elif name == 'hourglass':
                texts.append('a class token' if value[0] else 'no class token')
            elif name == 'layer_scale':
                stages = ', '.join(str(stage) for stage, has in enumerate(value, 1) if has)
                where = f'in stages {stages}' if stages else 'nowhere'
                texts.append(f'LayerScale (gamma_1, gamma_2) {where}')
            else:
                texts.append(f'{name}={value[0] if len(value) == 1 else value}')
        return ', '.join(texts)


def spec_of(state: Mapping[str, Tensor]) -> NetworkSpec:
    """Read the network off a backbone's keys and shapes."""
    stages = [stage_spec(state, stage) for stage in range(1, NUM_STAGES + 1)]
    stem = stem_weight(state)
    hourglass = None if stages[2][1] is None else 'cls_token' in state
    in_channels, dims = (None, None) if stem is None else (stem.shape[1], stem.ndim - 2)
    return NetworkSpec((hourglass,), *zip(*stages, strict=True), (in_channels,), (dims,))


def stem_weight(state: Mapping[str, Tensor]) -> Tensor | None:
    """Return the kernel of a backbone's first convolution, or None: this is no backbone."""
    for name in ('patch_embed1.proj.weight', 'patch_embed1.proj.0.weight'):
        if name in state and state[name].ndim > 1:
            return state[name]
    return None


def stage_spec(state: Mapping[str, Tensor], stage: int) -> tuple[Any, ...]:
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


def guess_preset(found: NetworkSpec) -> tuple[str, str] | None:
    """Return the class and the preset that look like this, or None."""
    for kind, presets in (('UniFormer', UNIFORMER), ('UniFormerLight', UNIFORMER_LIGHT)):
        for name, arch in presets.items():
            scale = tuple(value > 0 for value in arch.layer_scale_init_value)
            spec = NetworkSpec(
                *((kind == 'UniFormerLight',), arch.embed_dims, arch.depths, arch.conv_stem),
                *(arch.mlp_ratios, scale, (None,), (None,)),
            )
            if not found.differences(spec):
                return kind, name
    return None


def preset_name(state: Mapping[str, Tensor]) -> str:
    """Return the class and the preset of a backbone's state dict, as text."""
    return ' '.join(guess_preset(spec_of(state)) or ['no preset'])


@dataclass(frozen=True)
class Layout:
    """How a file lays out its state dict: all that ``state_dict_of`` takes away."""

    wrappers: tuple[str, ...] = ()
    """Keys that lead to the state dict."""
    prefix: str = ''
    """What a parallel wrapper put before all keys."""
    renamed: tuple[str, ...] = ()
    """Parts with a name from before mmengine."""

    def __str__(self) -> str:
        """Write it as a pattern of keys."""
        return '/'.join((*self.wrappers, f'{self.prefix}{"|".join(self.renamed)}*'))


def state_dict_of(raw: Mapping[str, Any], ours: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return a file's tensors by the keys that current models have.

    ``ours`` are keys of the model to be loaded: a part that it has by an old name keeps this name.
    """
    layout, nested = layout_of(raw)
    parts_kept = {key.partition('.')[0] for key in ours}
    names = {old: new for old, new in RENAMED_PARTS.items() if old.rstrip('.') not in parts_kept}
    state = {key.removeprefix(layout.prefix): value for key, value in nested.items()}
    return rename_parts(state, names)


def layout_of(raw: Mapping[str, Any]) -> tuple[Layout, dict[str, Tensor]]:
    """Return how a file lays out its tensors, and the tensors by the keys in the file."""
    wrappers = []
    while key := next((key for key in WRAPPERS if isinstance(raw.get(key), Mapping)), None):
        if len(wrappers) == MAX_NESTING:  # a file can contain itself
            return Layout(), {}
        wrappers.append(key)
        raw = raw[key]
    state = {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}
    prefix = PARALLEL_PREFIX if all(key.startswith(PARALLEL_PREFIX) for key in state) else ''
    renamed = [old for old in RENAMED_PARTS if any(key.startswith(prefix + old) for key in state)]
    return Layout(tuple(wrappers), prefix, tuple(renamed)), state


def rename_parts(
    state: Mapping[str, Tensor], table: Mapping[str, str], prefix: str = ''
) -> dict[str, Tensor]:
    """Replace the starts of keys by a table, and put a prefix before all; order is kept."""

    def renamed(key: str) -> str:
        start = next((old for old in table if key.startswith(old)), '')
        return prefix + table.get(start, '') + key.removeprefix(start)

    return {renamed(key): tensor for key, tensor in state.items()}


def backbone_state(raw: Mapping[str, Any], prefix: str | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file's backbone, bare or in a whole model, by its own keys."""
    state = state_dict_of(raw)
    start = (prefix or BACKBONE_PREFIX).rstrip('.') + '.'
    inner = {key.removeprefix(start): state[key] for key in state if key.startswith(start)}
    if prefix and not inner:
        raise CheckpointError(
            f'no key of the checkpoint starts with prefix={start!r}; keys start with '
            f'{", ".join(parts(state))}: leave prefix out or correct it'
        )
    return inner or state


def name_classifier(
    state: Mapping[str, Tensor], fits: Callable[[str], bool], prefix: str = BACKBONE_PREFIX
) -> dict[str, Tensor]:
    """Name a whole classifier's layers; the file may have the names of anyone.

    Args:
        state: State dict by released keys, or by those of mmpretrain or mmaction2.
        fits: Tells whether a layer may have a name; layers without such a name are left out.
        prefix: What the backbone's keys shall have before them; may be empty.
    """
    names = {}
    for released, others in CLASSIFIER_LAYERS.items():
        new = next(filter(fits, (released, *others)), None)
        names |= dict.fromkeys((released, *others), new)
    bare = stem_weight(state) is not None
    result = {}
    for key, tensor in state.items():
        layer, _, leaf = key.rpartition('.')
        if layer not in names:
            key = prefix + key if bare else key
            result[key if prefix else key.removeprefix(BACKBONE_PREFIX)] = tensor
        elif names[layer] is not None:
            result[f'{names[layer]}.{leaf}'] = tensor
    return result


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


def record_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what mmuniformer wrote into a file's meta: head_dim, first layout and the like."""
    meta = raw.get('meta')
    record = meta.get('mmuniformer') if isinstance(meta, Mapping) else None
    return record if isinstance(record, Mapping) else {}
