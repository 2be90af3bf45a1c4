"""A hook that tests the folded form of a backbone."""

from __future__ import annotations

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmuniformer.engine.checkpoint import unwrapped
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone
from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class DeployHook(Hook):
    """Fold the backbone's norms, residuals and LayerScale before a test (``switch_to_deploy``).

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.DeployHook')]
    """

    def before_test(self, runner: Runner) -> None:
        """Fold; the weights are loaded by now.

        Raises:
            UserError: The model has no backbone of ours, or a hook swaps averaged weights in.
        """
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UserError(
                'DeployHook (--deploy) and EMAHook cannot be combined: leave EMAHook out, the '
                'weights in a checkpoint are the averaged ones already'
            )
        _, backbone = find_backbone(unwrapped(runner.model).eval())
        if backbone is None:
            raise UserError('DeployHook (--deploy): the model has no backbone of mmuniformer')
        backbone.switch_to_deploy()
