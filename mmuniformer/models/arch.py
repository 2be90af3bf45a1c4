"""Presets as data, and the checks on what a user overrides in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

NUM_STAGES = 4
STRIDES = (4, 2, 2, 2)
TOTAL_STRIDE = math.prod(STRIDES)
"""Pixels of the image in a patch of stage 4: the smallest side that a network takes."""
ATTENTION_STAGES = (2, 3)
"""Stages (from 0) whose blocks attend; the earlier ones convolve."""


@dataclass(frozen=True)
class Arch:
    """The shape of a network; one entry a stage where a field is a tuple."""

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int = 64
    mlp_ratios: tuple[float, ...] = (4, 4, 4, 4)
    conv_stem: tuple[bool, ...] = (False, False, False, False)
    layer_scale_init_value: tuple[float, ...] = (0, 0, 0, 0)
    keep_ratios: tuple[tuple[float, ...], ...] | None = None
    """Hourglass only: for stages 3 and 4, the share of patches that each block attends among."""
    trade_offs: tuple[tuple[float, ...], ...] | None = None
    """Hourglass only: weight of the new score in each block; as ``keep_ratios`` by default."""


CONV_EVERYWHERE = (True, True, True, True)
CONV_FIRST = (True, False, False, False)
LIGHT = {'mlp_ratios': (3, 3, 3, 3), 'conv_stem': CONV_FIRST}

UNIFORMER = {
    'nano': Arch((16, 32, 64, 128), (1, 2, 4, 1), head_dim=16),
    'small': Arch((64, 128, 320, 512), (3, 4, 8, 3)),
    'small_plus': Arch((64, 128, 320, 512), (3, 5, 9, 3), head_dim=32, conv_stem=CONV_EVERYWHERE),
    'base': Arch((64, 128, 320, 512), (5, 8, 20, 7)),
    'base_ls': Arch((64, 128, 320, 512), (5, 8, 20, 7), layer_scale_init_value=(0, 0, 1e-6, 1e-6)),
    'large': Arch(
        (128, 192, 448, 640), (5, 10, 24, 7), layer_scale_init_value=(1e-6, 1e-6, 1e-6, 1e-6)
    ),
}

UNIFORMER_LIGHT = {
    'nano': Arch(
        (16, 32, 64, 128), (1, 2, 4, 2), head_dim=16, keep_ratios=((1,) + (0.5,) * 3, (0.5,) * 2),
        **LIGHT,
    ),
    'xs': Arch(
        (64, 128, 256, 512), (3, 5, 9, 3), head_dim=32, keep_ratios=((1,) + (0.5,) * 8, (0.5,) * 3),
        **LIGHT,
    ),
    'xxs': Arch(
        (56, 112, 224, 448), (2, 5, 8, 2), head_dim=28, keep_ratios=((1,) + (0.5,) * 7, (0.5,) * 2),
        **LIGHT,
    ),
}  # fmt: skip

HOURGLASS_FIELDS = ('keep_ratios', 'trade_offs')
BROADCAST_FIELDS = ('mlp_ratios', 'conv_stem', 'layer_scale_init_value')


def resolve_arch(
    arch: str | Mapping[str, Any],
    presets: Mapping[str, Arch],
    hourglass: bool = False,
    **overrides: Any,
) -> Arch:
    """Turn a preset's name or a mapping of fields into a checked ``Arch``.

    A mapping has at least ``embed_dims`` and ``depths``. ``overrides`` replace fields unless None.

    Raises:
        ValueError: A name, field or value is not one the network can have.
        TypeError: A field's value is not of its kind.
    """
    overrides = {k: v for k, v in overrides.items() if v is not None}
    if isinstance(arch, str):
        if arch not in presets:
            raise ValueError(f'arch={arch!r} is unknown: choose one of {", ".join(presets)}')
        given = {f.name: getattr(presets[arch], f.name) for f in fields(Arch)}
    elif isinstance(arch, Mapping):
        given = check_fields(dict(arch), hourglass)
    else:
        raise ValueError(f'arch={arch!r} should be a dict, or one of {", ".join(presets)}')
    given |= overrides
    resolved = Arch(**{name: freeze(name, value) for name, value in given.items()})
    check_stages(resolved)
    return check_hourglass(resolved) if hourglass else resolved


def check_fields(given: dict[str, Any], hourglass: bool) -> dict[str, Any]:
    """Refuse a mapping with unknown or missing fields."""
    known = [f.name for f in fields(Arch) if hourglass or f.name not in HOURGLASS_FIELDS]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f'arch has unknown keys {unknown}: it can have {", ".join(known)}')
    required = ['embed_dims', 'depths'] + ['keep_ratios'] * hourglass
    missing = [name for name in required if name not in given]
    if missing:
        raise ValueError(f'arch lacks {missing}: a dict needs at least {", ".join(required)}')
    return given


def freeze(name: str, value: Any) -> Any:
    """Make lists tuples, and one number for all stages a tuple of one entry a stage."""
    if name in BROADCAST_FIELDS and isinstance(value, (int, float)):
        return (value,) * NUM_STAGES
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(freeze('', entry) for entry in value)
    return value


def check_stages(arch: Arch) -> None:
    """Refuse sizes that no network can have."""
    for name in ('embed_dims', 'depths', *BROADCAST_FIELDS):
        value = getattr(arch, name)
        if not isinstance(value, tuple) or len(value) != NUM_STAGES:
            raise ValueError(f'{name}={value!r} should have {NUM_STAGES} entries, one a stage')
    for name in ('embed_dims', 'depths'):
        value = getattr(arch, name)
        if any(not isinstance(n, int) or n < 1 for n in value):
            raise ValueError(f'{name}={value!r} should be integers from 1 up')
    for name in BROADCAST_FIELDS:
        value = getattr(arch, name)
        if not all(isinstance(entry, (int, float)) and abs(entry) < 1e6 for entry in value):
            raise ValueError(f'{name}={value!r} should be a finite number, or one a stage')
    if any(entry not in (True, False) for entry in arch.conv_stem):
        raise ValueError(f'conv_stem={arch.conv_stem!r} should be True or False, or one a stage')
    if any(ratio <= 0 for ratio in arch.mlp_ratios):
        raise ValueError(f'mlp_ratios={arch.mlp_ratios!r} should be above 0')
    if any(value < 0 for value in arch.layer_scale_init_value):
        raise ValueError(
            f'layer_scale_init_value={arch.layer_scale_init_value!r} should not be negative; '
            '0 means no LayerScale'
        )
    if not isinstance(arch.head_dim, int) or arch.head_dim < 1:
        raise ValueError(f'head_dim={arch.head_dim!r} should be an integer from 1 up')
    for stage in ATTENTION_STAGES:
        if arch.embed_dims[stage] % arch.head_dim:
            raise ValueError(
                f'head_dim={arch.head_dim} does not divide the {arch.embed_dims[stage]} channels '
                f'of stage {stage + 1}: choose a divisor (released weights have 64, 32 or 28)'
            )


def check_hourglass(arch: Arch) -> Arch:
    """Refuse keep ratios and trade-offs that do not fit the depths; fill in the trade-offs."""
    depths = tuple(arch.depths[stage] for stage in ATTENTION_STAGES)
    arch = replace(arch, trade_offs=arch.trade_offs or arch.keep_ratios)
    for name in HOURGLASS_FIELDS:
        value = getattr(arch, name)
        nested = isinstance(value, tuple) and all(isinstance(stage, tuple) for stage in value)
        if not nested or tuple(map(len, value)) != depths:
            raise ValueError(
                f'{name}={value!r} should have one entry a block of stages 3 and 4, '
                f'so {depths[0]} and {depths[1]}'
            )
        if not all(isinstance(entry, (int, float)) for stage in value for entry in stage):
            raise ValueError(f'{name}={value!r} should have numbers alone')
    if any(not 0 < ratio <= 1 for stage in arch.keep_ratios for ratio in stage):
        raise ValueError(f'keep_ratios={arch.keep_ratios!r} should lie in (0, 1]')
    if any(not 0 <= weight <= 1 for stage in arch.trade_offs for weight in stage):
        raise ValueError(f'trade_offs={arch.trade_offs!r} should lie in [0, 1]')
    if arch.keep_ratios[0][0] != 1:
        raise ValueError(
            f'keep_ratios={arch.keep_ratios!r} should start with 1: the first block of stage 3 '
            'makes the score that the later ones select by'
        )
    if any(arch.conv_stem[stage] for stage in ATTENTION_STAGES):
        raise ValueError(
            f'conv_stem={arch.conv_stem!r} should be False in stages 3 and 4 of an hourglass '
            'network: its score is pooled to the grid of a patch embedding'
        )
    return arch
