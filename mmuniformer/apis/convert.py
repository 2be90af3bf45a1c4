"""Rewrite released weight files for the current frameworks, and back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmuniformer.errors import CheckpointError, UserError, refuse_existing
from mmuniformer.models.weights.files import fetch, load_state_dict_file, sha256
from mmuniformer.models.weights.released import (
    RENAMED_PARTS,
    Layout,
    backbone_state,
    file_name,
    guess_preset,
    head_dim_by_name,
    layout_of,
    parts,
    recorded_head_dim,
    rename_parts,
    spec_of,
    state_dict_of,
    stem_weight,
)
from mmuniformer.version import __version__

IMAGENET = 'ImageNet classifier'
POSE = 'pose estimator'
KINDS = {
    'decode_head': 'segmentor',
    'roi_head': 'detector',
    'rpn_head': 'detector',
    'bbox_head': 'detector',
    'head': POSE,
}
"""What a whole model is, by the first of these parts that it has."""

RELEASED_LAYOUTS = {
    IMAGENET: Layout(('model',)),
    POSE: Layout(('state_dict',), renamed=tuple(RENAMED_PARTS)),
}
"""How files were released; other kinds have a plain ``state_dict``."""

DATASET_META = {'CLASSES': 'classes', 'PALETTE': 'palette'}
"""Entries of ``meta`` before mmengine, and their names in the current ``dataset_meta``."""


def convert(
    source: str, target: str | Path, to: str = 'current', head_dim: int | None = None,
    force: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Rewrite a weight file: keys change, tensors do not.

    Args:
        source: Path or URL of an ImageNet, detection, segmentation or pose file.
        target: File to write.
        to: ``current`` for files that mmengine loads as they are, ``released`` for the layout the
            file came in (or its kind was released in).
        head_dim: What the file was trained with, to be recorded; by default what is known of it.
        force: Replace ``target`` if it exists.

    Returns:
        What was done, as text by subject, for a table.

    Raises:
        CheckpointError: ``source`` can't be read or holds no UniFormer.
        UserError: ``target`` exists or can't be written.
    """
    target = Path(target)
    refuse_existing(target, force)
    path = fetch(source)
    raw = load_state_dict_file(path)
    layout, _ = layout_of(raw)
    state = state_dict_of(raw)
    backbone = backbone_state(raw)
    if stem_weight(backbone) is None:
        raise CheckpointError(
            f'{source} holds no UniFormer: keys start with {", ".join(parts(state))}'
        )
    kind = kind_of(state)
    if head_dim is None:
        head_dim = recorded_head_dim(raw) or head_dim_by_name(source)
    preset = guess_preset(spec_of(backbone))
    meta = raw['meta'] if isinstance(raw.get('meta'), Mapping) else {}
    record = {
        'version': __version__,
        'source': file_name(source),
        'sha256': sha256(path),
        'network': ' '.join(preset) if preset else 'no preset',
        'kind': kind,
        'layout': recorded_layout(meta) or asdict(layout),
    }
    if head_dim is not None:
        record['head_dim'] = head_dim
    if to == 'current':
        wanted = Layout(('state_dict',))
        result = {'meta': {'mmuniformer': record}, 'state_dict': state}
        if dataset := dataset_meta(meta):
            result['meta']['dataset_meta'] = dataset
    else:
        default = RELEASED_LAYOUTS.get(kind, Layout(('state_dict',)))
        wanted = Layout(**(recorded_layout(meta) or asdict(default)))
        result = lay_out(state, wanted, dataset_meta(meta))
    write(result, target, force)
    dropped = [str(key) for key in raw if layout.wrappers and key not in ('meta', *layout.wrappers)]
    return {
        'source': f'{source} ({kind}, {record["network"]})',
        'head_dim': 'not known' if head_dim is None else str(head_dim),
        'weights': f'{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values',
        'renamed': ', '.join(changes(layout, wanted)) or 'nothing',
        'left out': ', '.join(dropped) or 'nothing',
        'sha256 of source': record['sha256'],
        'written': str(target),
    }


def kind_of(state: Mapping[str, Tensor]) -> str:
    """Tell an ImageNet file, a detector, a segmentor and a pose estimator apart."""
    if stem_weight(state) is not None:
        return IMAGENET
    present = parts(state, limit=len(state))
    return next((kind for part, kind in KINDS.items() if part in present), 'model')


def recorded_layout(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the layout that a file had before it was first converted, or None."""
    record = meta.get('mmuniformer')
    return record.get('layout') if isinstance(record, Mapping) else None


def lay_out(state: Mapping[str, Tensor], layout: Layout, dataset: dict[str, Any]) -> dict[str, Any]:
    """Write a state dict by current keys as a file of a layout."""
    result: Any = rename_parts(
        state, {RENAMED_PARTS[old]: old for old in layout.renamed}, layout.prefix
    )
    for key in reversed(layout.wrappers):
        result = {key: result}
    if dataset and layout.wrappers:
        result['meta'] = {old: dataset[new] for old, new in DATASET_META.items() if new in dataset}
    return result


def changes(before: Layout, after: Layout) -> list[str]:
    """Say how two layouts differ."""
    rows = [f'{old} to {RENAMED_PARTS[old]}' for old in before.renamed if old not in after.renamed]
    rows += [f'{RENAMED_PARTS[old]} to {old}' for old in after.renamed if old not in before.renamed]
    for subject in ('prefix', 'wrappers'):
        old, new = getattr(before, subject), getattr(after, subject)
        if tuple(old) != tuple(new):
            rows.append(f'{subject} {"".join(old) or "none"} to {"".join(new) or "none"}')
    return rows


def dataset_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes and colors that a file records, by their current names."""
    current = meta.get('dataset_meta')
    if isinstance(current, Mapping):
        return dict(current)
    return {new: meta[old] for old, new in DATASET_META.items() if meta.get(old) is not None}


def write(checkpoint: dict[str, Any], target: Path, force: bool) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        UserError: ``target`` appeared meanwhile, or its folder can't be written.
    """
    part = target.with_name(f'.{target.name}.{os.getpid()}')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            torch.save(checkpoint, file)
        refuse_existing(target, force)
        os.replace(part, target)
    except OSError as error:
        raise UserError(f'{target} could not be written: {error}') from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
