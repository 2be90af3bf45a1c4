"""A loop over epochs that can go on in the middle of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmuniformer.errors import UserError
from mmuniformer.registry import class_of


class EpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs; ``first_batch`` is where the next epoch goes on."""

    first_batch = 0

    def run_epoch(self) -> None:
        """Train for one epoch, or for the rest of one.

        What was trained on is loaded again and dropped, so that workers draw the same as without
        the interruption. Hooks with a method ``before_resumed_batch`` are called right after.
        """
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        first, self.first_batch = self.first_batch, 0
        batches = iter(self.dataloader)
        if first:
            for _ in range(first):
                next(batches, None)
            self.runner.call_hook('before_resumed_batch')
        for index, batch in enumerate(batches, first):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


def resumable_loop(settings: Any) -> Any:
    """Let the config of mmengine's loop over epochs build ``EpochLoop``; others stay.

    Raises:
        UserError: It asks for no epoch or iteration at all.
    """
    if not isinstance(settings, Mapping):
        return settings
    settings = dict(settings)
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        count = settings.get(key, 1)
        if not isinstance(count, (int, float)) or count < 1:
            raise UserError(f'train_cfg.{key}={count!r}: set it to 1 or more')
    by_epoch = settings.pop('by_epoch', None)
    kind = class_of(settings, LOOPS)
    if kind is None and by_epoch is not None:
        kind = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    if kind is not None:
        settings['type'] = EpochLoop if kind is EpochBasedTrainLoop else kind
    return settings
