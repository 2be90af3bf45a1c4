"""A hook that refuses checkpoints of other models."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmuniformer.engine.checkpoint import check_whole_model, unwrapped
from mmuniformer.models.base import find_backbone
from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Refuse a checkpoint that belongs to another model, before any of it is loaded.

    mmengine loads what fits and warns about the rest, so that testing a ``base`` checkpoint with a
    ``small`` config gives scores near 0 and status 0. Training from ``load_from`` may bring heads
    for other classes (they are trained anew); testing and resuming may not.

    It also writes the backbone's head_dim, which no shape shows, into the checkpoints of a run,
    and compares it when they are loaded.

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.CheckpointGuardHook')]
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check what was read; mmengine calls this before it fills the model.

        Raises:
            CheckpointError: The checkpoint does not fit the runner's model.
        """
        # A public property would build the loop; mmengine builds it before it loads weights.
        training = isinstance(runner._train_loop, BaseLoop)
        source = runner._load_from or f'the last checkpoint of {runner.work_dir}'
        check_whole_model(
            runner.model, checkpoint, str(source), fine_tune=training and not runner._resume
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Record what the weights need and do not show."""
        _, backbone = find_backbone(unwrapped(runner.model))
        if backbone is not None:
            checkpoint.setdefault('meta', {})['mmuniformer'] = {'head_dim': backbone.head_dim}
