"""Compare a file's backbone with a model's, and say what to change where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

from mmuniformer.models.weights.released import (
    OUTPUT_NORMS,
    PART_STAGES,
    SPLIT_PARTS,
    UNUSED_COUNTER,
    UNUSED_PARTS,
    NetworkSpec,
    guess_preset,
    parts,
    spec_of,
    stem_weight,
)

ENOUGH = 0.95
"""Share of the backbone's tensors that a file of the same network has at the least."""


@dataclass(frozen=True)
class Match:
    """How a file's keys and shapes fit a backbone's; tuples of keys."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    """Not in the file, as expected: output norms, counters."""
    unused: tuple[str, ...]
    """Not in the model, as expected: classifiers, stages that are not built."""
    lost: tuple[str, ...]
    """In the model and not in the file."""
    unexpected: tuple[str, ...]
    """In the file and not in the model."""
    reshaped: tuple[str, ...]
    """In both, with different shapes."""

    @property
    def fits(self) -> bool:
        """Whether all differences are expected ones."""
        return not (self.lost or self.unexpected or self.reshaped)


def match_backbone(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], whole: bool = False
) -> Match:
    """Compare a backbone's state dict with a file's; one of a whole model has output norms."""
    stages = {PART_STAGES[part] for part in parts(ours, len(ours)) if part.startswith('blocks')}
    groups = {field.name: [] for field in fields(Match)}
    for name, tensor in ours.items():
        if name in theirs:
            same = tensor.shape == theirs[name].shape
            groups['loaded' if same else 'reshaped'].append(name)
        else:
            new_norm = name.partition('.')[0] in OUTPUT_NORMS and not whole
            new_part = not whole and not set(SPLIT_PARTS).isdisjoint(name.split('.'))
            expected = new_norm or new_part or name.endswith(UNUSED_COUNTER)
            groups['missing' if expected else 'lost'].append(name)
    for name in theirs:
        if name not in ours:
            part = name.partition('.')[0]
            not_built = part in PART_STAGES and PART_STAGES[part] not in stages
            not_returned = part in OUTPUT_NORMS and f'{part}.weight' not in ours
            expected = part in UNUSED_PARTS or not_built or not_returned
            groups['unused' if expected else 'unexpected'].append(name)
    return Match(**{name: tuple(names) for name, names in groups.items()})


def explain(
    source: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], match: Match
) -> str:
    """Say why a file does not fit a backbone, and what to set so that it does."""
    mine, found = spec_of(ours), spec_of(theirs)
    lines = [f'{source} does not fit the backbone: nothing was loaded.']
    stem = stem_weight(theirs)
    if stem is None:
        lines.append(f'It holds no UniFormer backbone; keys start with {", ".join(parts(theirs))}')
    elif stem.ndim == 5 and mine.dims != (3,):
        lines.append(
            'It is a video network (3-D convolutions) and the backbone one for images: take a file '
            'of an image network, or for clips the backbone of its name with 3D at the end.'
        )
    elif mine.dims == (3,) and stem.ndim == 4:
        lines.append(
            'It is a network for images and the backbone one for clips: give it as init_cfg of '
            'the backbone, which inflates its kernels.'
        )
    else:
        needed = len(match.loaded) + len(match.lost) + len(match.reshaped)
        if len(match.loaded) < ENOUGH * needed:
            lines.append(f'Only {len(match.loaded)} of {needed} tensors would load.')
        differing = found.differences(mine)
        if differing:
            lines.append(f'The file has {found.describe(differing)};')
            lines.append(f'the backbone {mine.describe(differing)}.')
            lines.append(hint(found, differing))
    for title, names in (
        ('Missing in the file', match.lost),
        ('Unknown to the backbone', match.unexpected),
        ('Of another shape', match.reshaped),
    ):
        if names:
            lines.append(f'{title}: {sample(names, ours, theirs)}.')
    return '\n  '.join(lines)


def hint(found: NetworkSpec, differing: list[str]) -> str:
    """Name the setting that makes a backbone fit a file."""
    if differing == ['in_channels']:
        return f'Set in_channels={found.in_channels[0]}, or convert the first layer of the file.'
    preset = guess_preset(found)
    if preset:
        text = f"Set type='mmuniformer.{preset[0]}', arch='{preset[1]}'"
    else:
        text = 'Set the arguments named above as the file has them'
    if 'layer_scale' in differing:
        scale = tuple(1e-6 if has else 0 for has in found.layer_scale)
        text += f' (the same LayerScale elsewhere: layer_scale_init_value={scale})'
    return f'{text}, or take the file that belongs to the present ones.'


def sample(
    names: tuple[str, ...], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], few: int = 4
) -> str:
    """List a few keys, with both shapes where both sides have them."""
    shown = [
        f'{name} (file {tuple(theirs[name].shape)}, model {tuple(ours[name].shape)})'
        if name in ours and name in theirs
        else name
        for name in names[:few]
    ]
    return ', '.join(shown + [f'and {len(names) - few} more'] * (len(names) > few))
