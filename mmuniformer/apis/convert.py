"""Rewrite released weight files for the current frameworks, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmuniformer.errors import (
    CheckpointError,
    UserError,
    explain_write_errors,
    refuse_existing,
)
from mmuniformer.models.weights import tensors
from mmuniformer.models.weights.class_names import permute_classes, read_labels
from mmuniformer.models.weights.download import sha256
from mmuniformer.models.weights.files import fetch, load_state_dict_file, whole_file
from mmuniformer.models.weights.released import (
    CLASSIFIER_LAYERS,
    RENAMED_PARTS,
    Layout,
    backbone_state,
    file_name,
    head_dim_by_name,
    layout_of,
    name_classifier,
    parts,
    preset_name,
    record_of,
    rename_parts,
    state_dict_of,
    stem_weight,
)
from mmuniformer.version import __version__

KINDS = {
    'patch_embed1': 'ImageNet classifier',
    'decode_head': 'segmentor',
    'roi_head': 'detector',
    'rpn_head': 'detector',
    'bbox_head': 'detector',
    'head': 'pose estimator',
}
"""What a file is of, by the first of these parts that it has."""

RELEASED_LAYOUTS = {
    'ImageNet classifier': Layout(('model',)),
    'video classifier': Layout(('model_state',)),
    'pose estimator': Layout(('state_dict',), renamed=tuple(RENAMED_PARTS)),
}
"""How files were released; other kinds have a plain ``state_dict``."""

CLASSIFIERS = ('ImageNet classifier', 'video classifier')
STARTS = {'mmpretrain': 'head.', 'mmaction': 'cls_head.'}
"""How the names of classifiers' layers start in these frameworks."""

DATASET_META = {'CLASSES': 'classes', 'PALETTE': 'palette'}
"""Entries of ``meta`` before mmengine, and their names in the current ``dataset_meta``."""


def convert(
    source: str, target: str | Path, to: str = 'current', head_dim: int | None = None,
    force: bool = False, labels: tuple[str, str] | None = None,
) -> dict[str, str]:  # fmt: skip
    """Rewrite a weight file: keys change, tensors do not, but for the order of classes.

    Args:
        source: Path or address of a file of any task.
        target: File to write; as safetensors, if it ends so.
        to: ``current`` for files that mmengine loads as they are, ``released`` for the layout the
            file came in (or its kind was released in), ``mmpretrain`` or ``mmaction`` for whole
            classifiers by the keys of these frameworks.
        head_dim: What the file was trained with, to be recorded; by default what is known of it.
        force: Replace ``target`` if it exists.
        labels: The lists of classes that the file has and shall have, each the name of a shipped
            list or a text file: the rows of its classifiers are permuted by name.

    Returns:
        What was done, as text by subject, for a table.

    Raises:
        CheckpointError: ``source`` cannot be read or holds no UniFormer.
        UserError: ``target`` exists or cannot be written.
    """
    target = Path(target)
    refuse_existing(target, force)
    if target.suffix == tensors.SUFFIX and to == 'released':
        raise UserError(
            f'{target}: safetensors files hold tensors by name alone, not in the {to} layout: '
            'write a .pth file, or leave --to out'
        )
    path = fetch(source)
    raw = load_state_dict_file(path)
    state, backbone, (layout, _) = state_dict_of(raw), backbone_state(raw), layout_of(raw)
    present = parts(state, limit=len(state))
    if stem_weight(backbone) is None:
        raise CheckpointError(f'{source} holds no UniFormer: keys start with {", ".join(present)}')
    kind = kind_of(state, backbone)
    earlier = record_of(raw)
    head_dim = head_dim or earlier.get('head_dim') or head_dim_by_name(source)
    dataset = dataset_meta(raw)
    record = {
        'source': file_name(source),
        'kind': kind,
        'network': preset_name(backbone),
        'sha256': sha256(path),
        'layout': earlier.get('layout', asdict(layout)),
        'version': __version__,
        **({'head_dim': head_dim} if head_dim else {}),
    }
    if labels:
        state = permute_classes(state, *map(read_labels, labels))
    whole, lost = state, []
    if to in STARTS:
        if kind not in CLASSIFIERS:
            raise UserError(f'{source} is of a {kind}: --to {to} is for classifiers')
        state = name_classifier(state, lambda name: name.startswith(STARTS[to]))
    elif to == 'released' and kind in CLASSIFIERS:
        state = name_classifier(state, CLASSIFIER_LAYERS.__contains__, prefix='')
    if state is not whole:
        named = {id(tensor) for tensor in state.values()}
        lost = parts(key for key, tensor in whole.items() if id(tensor) not in named)
    if to != 'released':
        result = {'meta': {'mmuniformer': record}, 'state_dict': state}
        if dataset:
            result['meta']['dataset_meta'] = dataset
    else:
        default = RELEASED_LAYOUTS.get(kind, Layout(('state_dict',)))
        result = lay_out(state, Layout(**earlier.get('layout', asdict(default))), dataset)
    with explain_write_errors(target), whole_file(target) as part:
        if target.suffix == tensors.SUFFIX:
            tensors.write(part, state, result['meta'])
        else:
            with open(part, 'wb') as file:
                torch.save(result, file)
        refuse_existing(target, force)  # it may have come meanwhile
    kept = ('meta', *layout.wrappers) if layout.wrappers else raw
    return {
        'source': f'{source} ({kind}, {record["network"]})',
        'head_dim': str(head_dim or 'not known'),
        'weights': f'{len(state)} tensors, {sum(t.numel() for t in state.values()):,} values',
        'layout': f'{layout} to {layout_of(result)[0]}',
        'left out': ', '.join([*(str(key) for key in raw if key not in kept), *lost]) or 'nothing',
        **({'classes': f'permuted by name, from {labels[0]} to {labels[1]}'} if labels else {}),
        'sha256 of source': record['sha256'],
        'written': str(target),
    }


def kind_of(state: Mapping[str, Tensor], backbone: Mapping[str, Tensor]) -> str:
    """Return what a file is of."""
    present = parts(state, limit=len(state))
    if stem_weight(backbone).ndim == 5:
        return 'video classifier'
    if 'head.fc.weight' in state and 'backbone.norm.weight' in state:
        return 'ImageNet classifier'
    return next((kind for part, kind in KINDS.items() if part in present), 'model')


def lay_out(state: Mapping[str, Any], layout: Layout, dataset: dict[str, Any]) -> dict[str, Any]:
    """Write a state dict by current keys as a file of a layout."""
    old_names = {RENAMED_PARTS[old]: old for old in layout.renamed}
    result: Any = rename_parts(state, old_names, layout.prefix)
    for key in reversed(layout.wrappers):
        result = {key: result}
    if dataset and layout.wrappers:
        result['meta'] = {old: dataset[new] for old, new in DATASET_META.items() if new in dataset}
    return result


def dataset_meta(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes and colors that a file records, by their current names."""
    meta = raw['meta'] if isinstance(raw.get('meta'), Mapping) else {}
    if isinstance(meta.get('dataset_meta'), Mapping):
        return dict(meta['dataset_meta'])
    return {new: meta[old] for old, new in DATASET_META.items() if meta.get(old) is not None}
