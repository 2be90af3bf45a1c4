"""Refuse whole models' checkpoints that do not fit.

Loading a released file meets expected differences (a classifier that dense prediction does not
use, output norms that ImageNet files lack); anything beyond them is an error that says what the
file is and what to change, because half-loaded weights train quietly to a bad result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmuniformer.errors import CheckpointError
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.matching import explain, match_backbone, sample
from mmuniformer.models.weights.released import (
    PARALLEL_PREFIX,
    RENAMED_PARTS,
    UNUSED_COUNTER,
    parts,
    recorded_head_dim,
    stem_weight,
    weights_of,
)


def check_whole_model(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str, fine_tune: bool = False
) -> None:
    """Refuse a whole model's checkpoint that mmengine would load in part, with a mere warning.

    Models without a backbone of ours pass unseen.

    Args:
        model: Detector, segmentor or pose estimator, wrapped or not.
        checkpoint: What the file holds.
        source: The file's name for messages.
        fine_tune: Heads of another shape, or none, are welcome: they are trained anew.

    Raises:
        CheckpointError: The backbone does not fit, or without ``fine_tune`` a head does not.
    """
    model = unwrapped(model)
    prefix, backbone = find_backbone(model)
    if backbone is None:
        return
    state = {todays_name(k): v for k, v in loadable(checkpoint).items()}
    theirs = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not theirs:
        raise CheckpointError(no_backbone_message(source, prefix, checkpoint))
    ours = backbone.state_dict()
    match = match_backbone(ours, theirs, whole=True)
    if not match.fits:
        raise CheckpointError(explain(source, ours, theirs, match))
    dim = recorded_head_dim(checkpoint)
    if dim not in (None, backbone.head_dim):
        raise CheckpointError(
            f'{source} was trained with head_dim {dim} and the backbone has {backbone.head_dim}: '
            f'set model.{prefix}head_dim={dim}'
        )
    check_heads(model, state, source, prefix, fine_tune)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers for parallel training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def loadable(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors that mmengine would load, by the names it would give them."""
    state = checkpoint.get('state_dict', checkpoint)
    return {
        key.removeprefix(PARALLEL_PREFIX): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def todays_name(name: str) -> str:
    """Return what a parameter of an older framework is called now."""
    for old, new in RENAMED_PARTS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def no_backbone_message(source: str, prefix: str, checkpoint: Mapping[str, Any]) -> str:
    """Say what a file without a whole model's backbone is, and where it belongs."""
    state = weights_of(checkpoint)
    if stem_weight(state) is not None:
        return (
            f'{source} holds a bare backbone, not a whole model, and nothing of it would load: '
            f"give it as model.{prefix}init_cfg=dict(type='Pretrained', checkpoint=...)"
        )
    if any(key.startswith(prefix) for key in state):
        return (
            f'{source} nests its weights under `model`, where mmengine does not look: rewrite it '
            f'with `mmuniformer convert {source} NEW.pth`'
        )
    return (
        f'{source} has no weights for the backbone: no name starts with {prefix!r}, but with '
        f'{", ".join(parts(state)) or "nothing"}. Give a checkpoint of this kind of model'
    )


CLASS_LAYERS = {
    'fc_cls.bias': ('classes', 1),
    'conv_seg.bias': ('classes', 0),
    'conv_logits.bias': ('classes', 0),
    'head.final_layer.bias': ('keypoints', 0),
}
"""Layers with an entry a class, what the entries are, and how many are not one (background)."""


def check_heads(
    model: nn.Module, state: Mapping[str, Tensor], source: str, prefix: str, fine_tune: bool
) -> None:
    """Refuse, or for fine-tuning report, what besides the backbone would not load.

    Raises:
        CheckpointError: Weights are missing or of another shape, and ``fine_tune`` is off.
    """
    ours = {k: v for k, v in model.state_dict().items() if not (prefix and k.startswith(prefix))}
    if not prefix:
        return
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
    facts += [f'lacking: {sample(lost, ours, state)}'] * bool(lost)
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
