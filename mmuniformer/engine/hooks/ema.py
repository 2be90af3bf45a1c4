"""A moving average of the weights beside those that are tested and saved."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import EMAHook

from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class KeepEMAHook(EMAHook):
    """Keep an exponential moving average of the weights, and leave the model as it is.

    mmengine's hook tests the average and saves it as the model's weights. Here checkpoints hold it
    in ``ema_state_dict``, and validation, tests and ``state_dict`` are of the trained weights, as
    the authors tell of the plain networks. The arguments are those of mmengine's hook.

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.KeepEMAHook', momentum=4e-5)]
    """

    def _swap_ema_parameters(self) -> None:
        pass

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        pass
