"""Load a backbone from a weight file, and refuse what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from mmuniformer.errors import CheckpointError
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.weights.files import load_state_dict_file
from mmuniformer.models.weights.matching import Match, explain, match_backbone
from mmuniformer.models.weights.released import (
    anatomy,
    backbone_state,
    file_name,
    guess_preset,
    head_dim_by_name,
    parts,
    recorded_head_dim,
)


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's weights."""

    source: str
    network: str
    match: Match

    def __str__(self) -> str:
        """Write the report as one line for the log."""
        match = self.match
        text = (
            f'{file_name(self.source)} ({self.network}): loaded {len(match.loaded)} of '
            f'{len(match.loaded) + len(match.missing)} backbone tensors'
        )
        if match.missing:
            text += f'; not in the file, as expected: {", ".join(parts(match.missing))}'
        if match.unused:
            text += f'; not used, as expected: {", ".join(parts(match.unused))}'
        return text


def load_pretrained(
    model: StagedBackbone,
    checkpoint: str | Path,
    prefix: str | None = None,
    map_location: str | torch.device = 'cpu',
    head_dim: int | None = None,
) -> LoadReport:
    """Load a released file, or a whole model's backbone, into a backbone and log a report.

    Expected: files lack output norms and BatchNorm's counters, and bring classifiers and stages
    that the backbone does not have. Anything else is an error and leaves the model as it was.

    Args:
        model: The backbone.
        checkpoint: Path or URL.
        prefix: Where in a whole model the backbone is; ``backbone`` by default.
        map_location: As in ``torch.load``.
        head_dim: What the file was trained with; overrides what its name tells.

    Raises:
        CheckpointError: The file can't be read, is of another network, or is known to have
            another head_dim than the model.
    """
    source = str(checkpoint)
    raw = load_state_dict_file(source, map_location)
    theirs = backbone_state(raw, prefix)
    ours = model.state_dict()
    match = match_backbone(ours, theirs)
    if not match.fits:
        raise CheckpointError(explain(source, ours, theirs, match))
    check_head_dim(model.head_dim, source, raw, theirs, head_dim)
    model.load_state_dict({name: theirs[name] for name in match.loaded}, strict=False)
    preset = guess_preset(anatomy(theirs))
    report = LoadReport(source, ' '.join(preset) if preset else 'no preset', match)
    print_log(str(report), logger='current')
    return report


def check_head_dim(
    ours: int,
    source: str,
    raw: Mapping[str, Any],
    theirs: Mapping[str, Tensor],
    stated: int | None = None,
) -> None:
    """Refuse a file known to be of another head_dim, which no shape shows.

    Known means: stated by the user, recorded by mmuniformer in the file, or told by its name. A
    classifier for token labelling alone is no proof (there are files of both kinds): it warns.

    Raises:
        CheckpointError: The head_dim is known and is not the model's.
    """
    for dim, why in (
        (stated, 'as init_cfg.head_dim states'),
        (recorded_head_dim(raw), 'as recorded in the file'),
        (head_dim_by_name(source), 'as its name tells'),
    ):
        if dim is None:
            continue
        if dim != ours:
            raise CheckpointError(
                f'{source} has head_dim {dim} ({why}) and the backbone {ours}: every shape agrees '
                f'and the accuracy would be ruined. Set head_dim={dim} in the backbone; or, if '
                f'the file is really of head_dim {ours}, state it: '
                f"init_cfg=dict(type='Pretrained', checkpoint=..., head_dim={ours})"
            )
        return
    labelled = 'aux_head.weight' in theirs and guess_preset(anatomy(theirs)) in TOKEN_LABELLED_32
    if labelled and ours != 32:
        print_log(
            f'{source} was trained with token labelling, and such files have head_dim 32 unless '
            f'their name says dim64; the backbone has {ours}. Shapes do not show it: state '
            'head_dim in init_cfg to be safe.',
            logger='current',
            level=logging.WARNING,
        )


TOKEN_LABELLED_32 = tuple(('UniFormer', name) for name in ('small', 'small_plus', 'base'))
"""Networks whose token-labelled releases have head_dim 32, next to later ones of 64."""
