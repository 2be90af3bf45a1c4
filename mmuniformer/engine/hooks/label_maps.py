"""A hook that stops segmentation on label maps that would silently spoil it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmuniformer.datasets.checks.label_maps import check_batch, check_files, check_names
from mmuniformer.engine.checkpoint import unwrapped
from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class MaskGuardHook(Hook):
    """Stop a segmentation run on label maps that would silently spoil it.

    Before a run the number of classes and the first files of each dataset are checked, then the
    labels of each batch: metrics ignore labels beyond the classes, and the loss fails on them deep
    inside. ``check_data = False`` in the config skips all of this.
    """

    def before_run(self, runner: Runner) -> None:
        """Check the datasets of the loops that are built."""
        if not runner.cfg.get('check_data', True):
            return
        head = decode_head(runner)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                if head is not None:
                    check_names(loop.dataloader.dataset, head)
                check_files(loop.dataloader.dataset)

    def _before_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train'
    ) -> None:
        """Check the labels of a batch; mmengine calls this in training, validation and testing."""
        head = decode_head(runner)
        if head is not None and runner.cfg.get('check_data', True):
            check_batch(head, data_batch)


def decode_head(runner: Runner) -> nn.Module | None:
    """Return the head of a segmentor; None for other models."""
    return getattr(unwrapped(runner.model), 'decode_head', None)
