"""Models of configs, built in the config's scope, with weights."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from torch import nn

from mmuniformer.apis.config import scope_of
from mmuniformer.engine.checkpoint import checked_state_dict
from mmuniformer.errors import UserError
from mmuniformer.models.weights.files import load_state_dict_file


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

    ``init_cfg`` is not followed: the weights are the checkpoint's, or random without one. The
    model has the attribute ``dataset_meta`` (classes and the like) where the checkpoint has it.

    Args:
        cfg: The config, as ``load_config`` reads it.
        checkpoint: A whole model's weights: path or URL.
        device: Where the model is put. On the meta device it is built without memory.

    Raises:
        CheckpointError: The file cannot be read or is of another model.
        UserError: The config has no model or one that cannot be built, or its framework does not
            import.
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
        if meta := (raw.get('meta') or {}).get('dataset_meta'):
            model.dataset_meta = meta
    return model.to(device).eval()


@contextlib.contextmanager
def quiet(prints: bool = False) -> Iterator[None]:
    """Hide what frameworks and exporters warn of and log below a warning.

    Args:
        prints: Let through what is printed.
    """
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
