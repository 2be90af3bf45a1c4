"""A hook that stops segmentation on label maps that would silently spoil it."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmuniformer.datasets.checks.label_maps import check_batch, check_files, check_names, find_head
from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class MaskGuardHook(Hook):
    """Stop a segmentation run on label maps that would silently spoil it.

    Before a run the number of classes (``check_names``) and the first files of each dataset
    (``check_label_file``) are checked, then the labels of each batch (``check_labels``). Metrics
    ignore labels beyond the classes silently, and the loss fails on them deep inside, on a GPU
    without naming anything. ``check_data = False`` in the config skips all of this.

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.MaskGuardHook')]
    """

    def before_run(self, runner: Runner) -> None:
        """Check the datasets of the loops that are built."""
        if not runner.cfg.get('check_data', True):
            return
        head = find_head(runner.model)
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                if head is not None:
                    check_names(loop.dataloader.dataset, head)
                check_files(loop.dataloader.dataset)

    def _before_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        mode: str = 'train',
    ) -> None:
        """Check the labels of a batch; mmengine calls this in training, validation and testing."""
        if runner.cfg.get('check_data', True):
            check_batch(runner.model, data_batch)
