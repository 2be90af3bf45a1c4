"""Load a backbone from a weight file, and refuse what does not fit.

Files differ from a model in expected ways: ImageNet files have a classifier and lack the output
norms of dense prediction. Any other difference is an error that says what the file is and what to
change, because half-loaded weights train quietly to a bad result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.files import load_state_dict_file
from mmuniformer.models.weights.inflation import inflate
from mmuniformer.models.weights.matching import Match, explain, match_backbone
from mmuniformer.models.weights.released import (
    backbone_state,
    file_name,
    head_dim_by_name,
    parts,
    preset_name,
    record_of,
    spec_of,
    state_dict_of,
    stem_weight,
)

TOKEN_LABELED_32 = ('UniFormer small', 'UniFormer small_plus', 'UniFormer base')
"""Networks whose token-labeled releases have head_dim 32, next to later ones of 64."""


def load_pretrained(
    model: nn.Module,
    checkpoint: str | Path,
    prefix: str | None = None,
    map_location: str | torch.device = 'cpu',
    head_dim: int | None = None,
    inflation: str = 'average',
) -> Match:
    """Load a released file, or a whole model's backbone, into a backbone and log a report.

    Args:
        model: The backbone; it has an attribute ``head_dim``.
        checkpoint: Path or address.
        prefix: Where in a whole model the backbone is; ``backbone`` by default.
        map_location: As in ``torch.load``.
        head_dim: What the file was trained with; overrides what its name tells.
        inflation: How kernels for images become ones for clips: ``average`` or ``center``.

    Raises:
        CheckpointError: The file cannot be read or does not fit; the model is as it was.
    """
    source = str(checkpoint)
    raw = load_state_dict_file(source, map_location)
    theirs, inflated = backbone_state(raw, prefix), []
    stem = stem_weight(theirs)
    if model.dims == 3 and stem is not None and stem.ndim == 4:
        theirs, inflated = inflate(theirs, model.state_dict(), source, inflation)
    match = check_backbone(model, theirs, raw, source, head_dim=head_dim)
    model.load_state_dict({name: theirs[name] for name in match.loaded}, strict=False)
    text = (
        f'{file_name(source)} ({preset_name(theirs)}): loaded {len(match.loaded)} of '
        f'{len(match.loaded) + len(match.missing)} backbone tensors'
    )
    if inflated:
        text += f'; inflated {len(inflated)} kernels along time by {inflation}'
    if match.missing:
        text += f'; not in the file, as expected: {", ".join(parts(match.missing))}'
    if match.unused:
        text += f'; not used, as expected: {", ".join(parts(match.unused))}'
    print_log(text, logger='current')
    return match


def check_backbone(
    model: nn.Module,
    theirs: Mapping[str, Tensor],
    raw: Mapping[str, Any],
    source: str,
    whole: bool = False,
    head_dim: int | None = None,
) -> Match:
    """Refuse a file's backbone that does not fit: the rules for every way of loading one.

    ``theirs`` has the backbone's own keys; ``whole`` tells that the file, whose content is ``raw``,
    is of a whole model and has output norms. ``head_dim`` is what the user says of the file.
    """
    ours = model.state_dict()
    check_form(ours, theirs)
    match = match_backbone(ours, theirs, whole)
    if not match.fits:
        raise CheckpointError(explain(source, ours, theirs, match))
    check_head_dim(model.head_dim, source, raw, theirs, head_dim)
    return match


def check_form(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Refuse folded weights for a plain model and the reverse: they share keys and shapes."""
    deployed = 'deployed' in ours
    if ('deployed' in theirs) != deployed and not ours.keys().isdisjoint(theirs):
        found, wanted = ('plain', 'deployed') if deployed else ('deployed', 'plain')
        raise CheckpointError(
            f'{found} weights do not go into a {wanted} model: load plain weights, and call '
            'switch_to_deploy() after that; deployed weights need it called before'
        )


def check_state_dict(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Refuse the state dict of another network, of which mmengine would load half with a warning.

    One without a stem is a part, as adapters are: what of it fits is for the caller to say.
    """
    check_form(ours, theirs)
    if stem_weight(theirs) is not None and spec_of(ours).differences(spec_of(theirs)):
        match = match_backbone(ours, theirs)
        raise CheckpointError(explain('the state dict', ours, theirs, match))


def check_head_dim(
    ours: int,
    source: str,
    raw: Mapping[str, Any],
    theirs: Mapping[str, Tensor],
    stated: int | None = None,
) -> None:
    """Refuse a file known to be of another head_dim, which no shape shows.

    Known means: stated by the user, recorded by mmuniformer in the file, or told by its name. A
    classifier for token labeling alone is no proof (there are files of both kinds): it warns.
    """
    sources = (
        (stated, 'as init_cfg.head_dim states'),
        (record_of(raw).get('head_dim'), 'as recorded in the file'),
        (head_dim_by_name(source), 'as its name tells'),
    )
    dim, why = next((known for known in sources if known[0] is not None), (None, ''))
    if dim not in (None, ours):
        raise CheckpointError(
            f'{source} has head_dim {dim} ({why}) and the backbone {ours}: every shape fits and '
            f'the accuracy would be ruined. Set head_dim={dim} in the backbone. If the file was '
            f'trained with {ours}, state it by init_cfg.head_dim={ours}, or record it with '
            f'`mmuniformer convert {source} NEW.pth --head-dim {ours}`'
        )
    heads = {'aux_head.weight', 'head.aux_fc.weight'}  # released, and in mmpretrain's models
    labeled = heads & state_dict_of(raw).keys() and preset_name(theirs) in TOKEN_LABELED_32
    if dim is None and labeled and ours != 32:
        print_log(
            f'{source} was trained with token labeling, and such files have head_dim 32 unless '
            f'their name says dim64; the backbone has {ours}. Shapes do not show it: state '
            'head_dim in init_cfg to be safe.',
            logger='current',
            level=logging.WARNING,
        )


def split_init_cfg(init_cfg: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the arguments of the weight files in an ``init_cfg``, and its other initializers.

    Takes what mmengine takes: a dict or a list of them, whose type is a name, a scoped name or a
    class. A file named None (``--cfg-options ....checkpoint=None``) is none.
    """
    files, others = [], []
    for cfg in [init_cfg] if isinstance(init_cfg, Mapping) else init_cfg or []:
        kind = cfg['type']
        if isinstance(kind, str):
            kind = WEIGHT_INITIALIZERS.get(kind)
        if kind is not PretrainedInit:
            others.append(cfg)
        elif str(cfg['checkpoint']).lower() != 'none':
            files.append({key: value for key, value in cfg.items() if key != 'type'})
    return files, others
