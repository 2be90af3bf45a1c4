"""Rewrite released weight files for today's frameworks, and back."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmuniformer.errors import CheckpointError, UserError, refuse_existing
from mmuniformer.models.weights.files import fetch, load_state_dict_file
from mmuniformer.models.weights.released import (
    PARALLEL_PREFIX,
    RENAMED_PARTS,
    anatomy,
    backbone_state,
    file_name,
    guess_preset,
    head_dim_by_name,
    is_parallel,
    parts,
    recorded_head_dim,
    stem_weight,
    unwrap,
    weights_of,
)
from mmuniformer.version import __version__

IMAGENET = 'ImageNet classifier'
POSE = 'pose estimator'
KINDS = {
    'keypoint_head': POSE,
    'decode_head': 'segmentor',
    'roi_head': 'detector',
    'rpn_head': 'detector',
    'bbox_head': 'detector',
    'head': POSE,
}
"""What a whole model is, by the first of these parts that it has."""

RELEASED_WRAPPERS = {IMAGENET: ['model']}
"""Where released files keep their weights, if not under ``state_dict``."""

DATASET_META = {'CLASSES': 'classes', 'PALETTE': 'palette'}
"""Entries of ``meta`` before mmengine, and their names in today's ``dataset_meta``."""


def convert(
    source: str, target: str | Path, to: str = 'today', head_dim: int | None = None,
    force: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Rewrite a weight file; names change, tensors do not.

    Args:
        source: Path or URL of an ImageNet, detection, segmentation or pose file.
        target: File to write.
        to: ``today`` for files that mmengine loads as they are, ``released`` for the layout the
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
    state = weights_of(raw)
    backbone = backbone_state(raw)
    if stem_weight(backbone) is None:
        raise CheckpointError(
            f'{source} holds no UniFormer: names start with {", ".join(parts(state))}'
        )
    kind = kind_of(state)
    if head_dim is None:
        head_dim = recorded_head_dim(raw) or head_dim_by_name(source)
    preset = guess_preset(anatomy(backbone))
    facts = {
        'version': __version__,
        'source': file_name(source),
        'sha256': sha256(path),
        'network': ' '.join(preset) if preset else 'no preset',
        'kind': kind,
        'layout': layout_of(raw),
    }
    if head_dim is not None:
        facts['head_dim'] = head_dim
    if to == 'today':
        result, renamed = todays_file(raw, state, facts)
    else:
        result, renamed = released_file(raw, state, kind)
    write(result, target, force)
    wrappers, _ = unwrap(raw)
    dropped = [str(key) for key in raw if key not in ('meta', *wrappers)] if wrappers else []
    return {
        'source': f'{source} ({kind}, {facts["network"]})',
        'head_dim': 'not known' if head_dim is None else str(head_dim),
        'weights': f'{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values',
        'renamed': ', '.join(renamed) or 'nothing',
        'left out': ', '.join(dropped) or 'nothing',
        'sha256 of source': facts['sha256'],
        'written': str(target),
    }


def kind_of(state: Mapping[str, Tensor]) -> str:
    """Tell an ImageNet file, a detector, a segmentor and a pose estimator apart."""
    if stem_weight(state) is not None:
        return IMAGENET
    present = parts(state, limit=len(state))
    return next((kind for part, kind in KINDS.items() if part in present), 'model')


def layout_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a file's layout: what is needed to write it again from today's.

    A file that was converted before keeps the layout that it first had.
    """
    meta = raw.get('meta')
    ours = meta.get('mmuniformer') if isinstance(meta, Mapping) else None
    if isinstance(ours, Mapping) and 'layout' in ours:
        return dict(ours['layout'])
    path, nested = unwrap(raw)
    tensors = [str(key) for key, value in nested.items() if isinstance(value, Tensor)]
    prefix = PARALLEL_PREFIX if is_parallel(tensors) else ''
    names = [name.removeprefix(prefix) for name in tensors]
    renamed = [old for old in RENAMED_PARTS if any(name.startswith(old) for name in names)]
    return {'wrappers': path, 'prefix': prefix, 'renamed': renamed}


def rename(state: Mapping[str, Tensor], table: Mapping[str, str], prefix: str = '') -> OrderedDict:
    """Replace the starts of names by a table, and put a prefix before all; order is kept."""
    renamed = OrderedDict()
    for name, tensor in state.items():
        start = next((old for old in table if name.startswith(old)), '')
        renamed[prefix + table.get(start, '') + name.removeprefix(start)] = tensor
    return renamed


def todays_file(
    raw: Mapping[str, Any], state: Mapping[str, Tensor], facts: dict[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return today's form of a file, and what was renamed."""
    meta = {'mmuniformer': facts}
    dataset = dataset_meta(raw)
    if dataset:
        meta['dataset_meta'] = dataset
    layout = layout_of({'state_dict': state})
    here = layout_of({k: v for k, v in raw.items() if k != 'meta'})
    changes = [f'{old} to {RENAMED_PARTS[old]}' for old in layout['renamed']]
    changes += [f'{here["prefix"]} removed'] * bool(here['prefix'])
    changes += [f'{".".join(here["wrappers"]) or "bare"} to state_dict'] * (
        here['wrappers'] != ['state_dict']
    )
    return {'meta': meta, 'state_dict': rename(state, RENAMED_PARTS)}, changes


def released_file(
    raw: Mapping[str, Any], state: Mapping[str, Tensor], kind: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the layout a file came in, or that its kind was released in, and what was renamed."""
    meta = raw.get('meta')
    ours = meta.get('mmuniformer', {}) if isinstance(meta, Mapping) else {}
    default = {
        'wrappers': RELEASED_WRAPPERS.get(kind, ['state_dict']),
        'prefix': '',
        'renamed': list(RENAMED_PARTS) if kind == POSE else [],
    }
    layout = ours.get('layout', default)
    table = {RENAMED_PARTS[old]: old for old in layout['renamed']}
    result: Any = rename(state, table, layout['prefix'])
    for key in reversed(layout['wrappers']):
        result = {key: result}
    dataset = dataset_meta(raw)
    if dataset and layout['wrappers']:
        result['meta'] = {old: dataset[new] for old, new in DATASET_META.items() if new in dataset}
    changes = [f'{new} to {old}' for new, old in table.items()]
    changes += [f'{layout["prefix"]} added'] * bool(layout['prefix'])
    return result, changes


def dataset_meta(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes and colours that a file records, by today's names."""
    meta = raw.get('meta')
    if not isinstance(meta, Mapping):
        return {}
    today = meta.get('dataset_meta')
    if isinstance(today, Mapping):
        return dict(today)
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


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
