"""Check whole models' checkpoints, and bring them into the form that mmengine loads."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from mmuniformer.errors import CheckpointError
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.load import check_backbone
from mmuniformer.models.weights.matching import sample
from mmuniformer.models.weights.released import (
    CLASSIFIER_LAYERS,
    UNUSED_COUNTER,
    name_classifier,
    parts,
    state_dict_of,
    stem_weight,
)

CLASS_LAYERS = {
    'cls_head.fc_cls.bias': ('classes', 0),
    'head.fc.bias': ('classes', 0),
    'fc_cls.bias': ('classes', 1),
    'conv_seg.bias': ('classes', 0),
    'conv_logits.bias': ('classes', 0),
    'head.final_layer.bias': ('keypoints', 0),
}
"""Layers with an entry a class, what the entries are, and how many are not one (background)."""


def checked_state_dict(
    model: nn.Module, raw: Mapping[str, Any], source: str, fine_tune: bool = False
) -> dict[str, Tensor]:
    """Return a checkpoint's state dict by the model's keys; refuse one that would half load.

    mmengine loads what fits and warns about the rest. Models without a backbone of ours pass, and
    those whose weights are sharded: FSDP and the like do not show their shapes. ``fine_tune``
    accepts heads of another shape, or none: they are trained anew.
    """
    model = unwrapped(model)
    prefix, backbone = find_backbone(model)
    ours = model.state_dict()
    state = state_dict_of(raw, ours)
    if any(f'{name}.weight' in ours for name in CLASSIFIER_LAYERS['head']):
        # The authors' files are whole, with the classifier beside the backbone's parts.
        state = name_classifier(state, lambda name: f'{name}.weight' in ours)
    if backbone is not None and not is_model_wrapper(model):
        if prefix:  # mmdet's semi-supervised detectors put student and teacher before the keys
            model._load_from_state_dict(state, '', {}, False, [], [], [])
        theirs = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if not theirs and stem_weight(state) is not None:
            raise CheckpointError(
                f'{source} holds a bare backbone, not a whole model, and nothing of it would load: '
                f"give it as model.{prefix}init_cfg=dict(type='Pretrained', checkpoint=...)"
            )
        if not theirs:
            raise CheckpointError(
                f'{source} has no weights for the backbone: no key starts with {prefix!r}, but '
                f'with {", ".join(parts(state)) or "nothing"}. Give a checkpoint of this kind of '
                'model'
            )
        check_backbone(backbone, theirs, raw, source, whole=True)
        heads = {key: value for key, value in ours.items() if not key.startswith(prefix)}
        check_heads(heads, state, source, fine_tune)
    return state


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers for data-parallel runs and test-time augmentation."""
    while isinstance(model, (DataParallel, DistributedDataParallel, BaseTTAModel)):
        model = model.module
    return model


def check_heads(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str, fine_tune: bool
) -> None:
    """Refuse, or for fine-tuning report, what besides the backbone would not load."""
    lost = tuple(k for k in ours if k not in state and not k.endswith(UNUSED_COUNTER))
    reshaped = tuple(k for k in ours if k in state and state[k].shape != ours[k].shape)
    if not lost and not reshaped:
        return
    facts = []
    for name in reshaped:
        layer = next((layer for layer in CLASS_LAYERS if name.endswith(layer)), None)
        if layer:
            noun, extra = CLASS_LAYERS[layer]
            counts = (len(state[name]) - extra, len(ours[name]) - extra)
            facts.append(f'{name}: {counts[0]} {noun} in the file, {counts[1]} in the model')
    facts += [f'of another shape: {sample(reshaped, ours, state)}'] * bool(reshaped)
    facts += [f'missing: {sample(lost, ours, state)}'] * bool(lost)
    if fine_tune:
        print_log(
            f'{source}: {len(lost) + len(reshaped)} tensors outside the backbone start anew; '
            + '; '.join(facts[:2]),
            logger='current',
            level=logging.WARNING,
        )
        return
    raise CheckpointError(
        f'{source} does not fit the heads of this model:\n  '
        + '\n  '.join(facts)
        + "\n  Use the config that the file was trained with, or set this one's number of classes."
    )
