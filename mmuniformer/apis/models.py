"""Models by name: of configs, built in the config's scope, and bare backbones; with weights."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from mmuniformer.apis.config import load_config, scope_of, shipped_configs, split_data
from mmuniformer.datasets.checks.config import dataset_meta
from mmuniformer.engine.checkpoint import checked_state_dict
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.weights.catalog import weights_of
from mmuniformer.models.weights.files import load_state_dict_file
from mmuniformer.models.weights.load import load_pretrained

BACKBONES = {
    **{f'uniformer_{arch}': (UniFormer, arch) for arch in UniFormer.presets},
    **{f'uniformer_light_{arch}': (UniFormerLight, arch) for arch in UniFormerLight.presets},
}
"""Class and preset of the bare backbones, by name."""


def list_models(pattern: str = '*', pretrained: bool = False) -> list[str]:
    """Return the names that ``get_model`` knows: bare backbones, then shipped configs.

    Args:
        pattern: As of file names; ``*`` stands for any characters.
        pretrained: Only those with released weights that can be downloaded.

    Example:
        >>> list_models('*light_x*')
        ['uniformer_light_xs', 'uniformer_light_xxs']
    """
    return [
        name
        for name in (*BACKBONES, *shipped_configs())
        if fnmatch(name, pattern) and (weights_of(name) or not pretrained)
    ]


def get_model(
    name: str | Path,
    pretrained: bool | str | Path = False,
    device: str | torch.device = 'cpu',
    **backbone: Any,
) -> nn.Module:
    """Build a model in evaluation mode.

    Args:
        name: One that ``list_models`` gives, or the path of a config. A config gives its
            framework's model, with the config as ``cfg``; for functions like
            ``inference_detector``, call ``mmengine.registry.init_default_scope`` first. A bare
            backbone needs torch and mmengine only.
        pretrained: True for the released weights; or a path or address of weights of this model (a
            bare backbone also takes its part of a whole model's). False for random weights.
        device: Where the model is put.
        backbone: Arguments of the backbone, such as ``stage3_attn='hybrid'``, ``window_size=14`` or
            ``out_indices=(3,)``; see ``mmuniformer.UniFormer``.

    Raises:
        CheckpointError: The weights cannot be downloaded or read, or are of another model.
        UserError: There is no such model, or no released file of its weights.

    Example:
        >>> model = get_model('uniformer_nano', out_indices=(3,))
        >>> [tuple(feature.shape) for feature in model(torch.rand(1, 3, 64, 64))]
        [(1, 128, 2, 2)]
    """
    if name in BACKBONES:
        kind, arch = BACKBONES[name]
        weights = weights_for(name, pretrained)
        with torch.device('meta' if torch.device(device).type == 'meta' else 'cpu'):
            model = kind(arch, **backbone)
        if weights:
            load_pretrained(model, weights)
        return model.to(device).eval()
    known = list_models()
    if Path(name).name.removesuffix('.py') not in known and not Path(name).is_file():
        close = ', '.join(difflib.get_close_matches(str(name), known))
        hint = f'The closest are {close}.' if close else 'mmuniformer.list_models() gives all.'
        raise UserError(f'{name}: no such file, and no model has that name. {hint}')
    cfg = load_config(name, {f'model.backbone.{key}': value for key, value in backbone.items()})
    model = build_model(cfg, weights_for(Path(name).stem, pretrained), device)
    # As the frameworks' own functions want it.
    model.cfg = cfg
    if not hasattr(model, 'dataset_meta'):
        with scope_of(cfg):
            model.dataset_meta = dataset_meta(split_data(cfg))
    return model


def weights_for(name: str, pretrained: bool | str | Path) -> str | None:
    """Return path or address of the weights that ``get_model`` is asked for, if any.

    Raises:
        UserError: Released ones, and there are none to download.
    """
    if not isinstance(pretrained, bool):
        return str(pretrained)
    file = weights_of(name)
    if pretrained and not file:
        raise UserError(
            f'no released file of weights of {name} can be downloaded: give the path or address of '
            'some (pretrained=PATH); `mmuniformer weights list` shows what can be'
        )
    return file.homes[0] if pretrained else None


def build_module(settings: Mapping[str, Any]) -> nn.Module:
    """Build a model or a part of one; what cannot be built is an error of the settings."""
    try:
        return MODELS.build(settings)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f'{settings.get("type")} cannot be built: {error}') from error


def build_model(
    cfg: Config, checkpoint: str | Path | None = None, device: str | torch.device = 'cpu'
) -> nn.Module:
    """Build a config's model for inference.

    ``init_cfg`` is not followed: the weights are the checkpoint's (path or URL of a whole model's),
    or random without one. On the meta device it is built without memory. The model has the
    attribute ``dataset_meta`` (classes and the like) where the checkpoint has it.

    Raises:
        CheckpointError: The file cannot be read or is of another model.
        UserError: There is no model, it cannot be built, or its framework does not import.
    """
    if 'model' not in cfg:
        raise UserError('the config has no `model`')
    device = torch.device(device)
    with scope_of(cfg), torch.device('meta' if device.type == 'meta' else 'cpu'):
        model = build_module(cfg.model)
    if checkpoint is not None:
        source = str(checkpoint)
        raw = load_state_dict_file(source)
        # What may be missing is known from the check: BatchNorm's counters.
        model.load_state_dict(checked_state_dict(model, raw, source), strict=False)
        if meta := meta_of(raw):
            model.dataset_meta = meta
    model.to(device).eval()  # which some networks of the frameworks return nothing from
    return model


def meta_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of its data; entries of odd kinds are left to the config."""
    meta = raw.get('meta')
    meta = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    if not isinstance(meta, Mapping):
        return {}
    kept = {key: value for key, value in meta.items() if isinstance(key, str)}
    names, palette = kept.get('classes'), kept.get('palette')
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        kept.pop('classes', None)
    try:
        isinstance(palette, str) or np.asarray(palette, dtype=int).reshape(-1, 3)
    except (TypeError, ValueError):
        kept.pop('palette', None)
    return kept


@contextlib.contextmanager
def quiet(prints: bool = False) -> Iterator[None]:
    """Hide warnings, what is logged below one and, without ``prints``, what is printed."""
    levels = {
        logging.getLogger('torch.onnx'): logging.ERROR,
        MMLogger.get_current_instance(): logging.WARNING,
    }
    before = {logger: logger.level for logger in levels}
    hidden = contextlib.nullcontext() if prints else contextlib.redirect_stdout(io.StringIO())
    with warnings.catch_warnings(), hidden:
        warnings.simplefilter('ignore')
        try:
            for logger, level in levels.items():
                logger.setLevel(level)
            yield
        finally:
            for logger, level in before.items():
                logger.setLevel(level)
