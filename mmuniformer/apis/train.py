"""Training and testing, for all tasks alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from torch import nn

from mmuniformer.apis.config import (
    TASKS,
    find_config,
    framework_of,
    load_config,
    scope_of,
    split_data,
)
from mmuniformer.apis.settings import named_settings, refuse_without_effect
from mmuniformer.engine.saving import resumable
from mmuniformer.errors import UserError
from mmuniformer.registry import type_name


def train(
    config: str,
    *,
    work_dir: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
) -> nn.Module:
    """Train what a config, by path or name, says, and return the trained model.

    The framework is that of the config's ``default_scope`` or of its model's type, the runner that
    of its ``runner_type``. Logs and checkpoints go to the work dir: by default the config's, else
    ``work_dirs/CONFIG``.

    Args:
        config: Path, or name of a shipped config.
        work_dir: Folder of logs and checkpoints.
        cfg_options: New values by dotted key.
        launcher: What started the processes: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        amp: Train in mixed precision.
        auto_scale_lr: Scale the learning rate to the batch size.
        resume: Checkpoint of a run to continue; ``'auto'`` for the latest in the work dir, if any.

    Raises:
        UserError: A file or setting cannot be used.
    """
    cfg = configured(config, work_dir, cfg_options, launcher)
    if amp:
        kind = type_name({'type': 'OptimWrapper', **cfg.optim_wrapper})
        if kind == 'OptimWrapper':
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
        elif kind != 'AmpOptimWrapper':
            raise UserError(f'--amp: optim_wrapper is {kind}; only OptimWrapper can be switched.')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise UserError(
                f'--auto-scale-lr: {config} does not say which batch size its rate is for. '
                'Add auto_scale_lr=dict(base_batch_size=...) to it.'
            )
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        latest = resumable(cfg.work_dir) if resume == 'auto' else resume
        cfg.resume = latest is not None
        # Before the first checkpoint a run starts as it does without --resume.
        cfg.load_from = str(latest) if latest else cfg.get('load_from')
    return run(cfg, 'train', config, cfg_options)


def evaluate(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    tta: bool = False,
) -> dict[str, float]:
    """Evaluate a checkpoint (path or URL) on the test data of a config, and return the metrics.

    ``tta`` uses the config's test-time augmentation; the rest is as for ``train``.

    Raises:
        UserError: A file or setting cannot be used.
    """
    cfg = configured(config, work_dir, cfg_options, launcher)
    cfg.load_from, cfg.resume = checkpoint, False
    if tta:
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise UserError(f'--tta: {config} lacks tta_model or tta_pipeline.')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        split_data(cfg).pipeline = cfg.tta_pipeline
    return run(cfg, 'test', config, cfg_options)


def run(cfg: Config, step: str, config: str, cfg_options: Mapping[str, Any] | None) -> Any:
    """Build the runner of a config and do a step; name the settings that prevent it."""
    plain = load_config(config) if cfg_options else cfg
    with scope_of(cfg):
        with named_settings(plain, cfg_options or {}, building=True):
            runner = RUNNERS.build(cfg)
        with named_settings(plain, cfg_options or {}, building=False):
            return getattr(runner, step)()


def configured(
    config: str, work_dir: str | None, cfg_options: Mapping[str, Any] | None, launcher: str
) -> Config:
    """Read a config and set what training and testing have in common."""
    if cfg_options:
        refuse_without_effect(load_config(config), cfg_options)
    cfg = load_config(config, cfg_options)
    if framework_of(cfg) is None:
        scopes = ', '.join(task.scope for task in TASKS.values())
        raise UserError(f'{config}: set default_scope to one of {scopes}')
    cfg.launcher = launcher
    cfg.work_dir = work_dir or cfg.get('work_dir') or f'work_dirs/{find_config(config).stem}'
    return cfg
