"""A hook that refuses checkpoints of other models."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, CheckpointLoader, Runner

from mmuniformer.engine.checkpoint import checked_state_dict, unwrapped
from mmuniformer.errors import CheckpointError
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.files import check_tensors
from mmuniformer.models.weights.load import split_init_cfg
from mmuniformer.models.weights.released import PARALLEL_PREFIX, state_dict_of
from mmuniformer.registry import HOOKS

WHOLE = {'cls_head.fc_cls': ' --to mmaction', 'head.fc': ' --to mmpretrain'}
"""Options that write whole classifiers, by a layer of the models."""


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Refuse a checkpoint that belongs to another model, before any of it is loaded.

    mmengine loads what fits and warns about the rest, so that testing a ``base`` checkpoint with a
    ``small`` config gives scores near 0 and status 0. Training from ``load_from`` may bring heads
    for other classes (they are trained anew); testing and resuming may not.

    It also writes the backbone's head_dim, which no shape shows, into the checkpoints of a run,
    and compares it when they are loaded.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Check the files in the whole model's ``init_cfg``, which mmengine is about to load."""
        model = unwrapped(runner.model)
        if not is_training(runner) or find_backbone(model)[1] in (None, model):
            return
        for file in split_init_cfg(getattr(model, 'init_cfg', None))[0]:
            source = file['checkpoint']
            if file.get('prefix') is None:  # with one, mmengine refuses a file that lacks it
                raw = CheckpointLoader.load_checkpoint(source, 'cpu')
                state = checked_state_dict(runner.model, raw, source, fine_tune=True)
                if state.keys().isdisjoint(visible_keys(raw)):
                    to = next((WHOLE[part] for part in WHOLE if f'{part}.weight' in state), '')
                    raise CheckpointError(
                        f'{source} lays out its weights in a way that model.init_cfg does not '
                        f'read: rewrite it with `mmuniformer convert {source} NEW.pth{to}`'
                    )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check what was read, and lay it out as mmengine expects, before it fills the model."""
        source = runner._load_from or f'the last checkpoint of {runner.work_dir}'
        check_tensors(state_dict_of(checkpoint), str(source))
        if find_backbone(unwrapped(runner.model))[1] is None:
            return
        fine_tune = is_training(runner) and not runner._resume
        state = checked_state_dict(runner.model, checkpoint, str(source), fine_tune)
        if not state.keys() <= visible_keys(checkpoint):
            checkpoint['state_dict'] = state

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Record what the weights need and do not show."""
        _, backbone = find_backbone(unwrapped(runner.model))
        if backbone is not None:
            checkpoint.setdefault('meta', {})['mmuniformer'] = {'head_dim': backbone.head_dim}


def is_training(runner: Runner) -> bool:
    """Tell whether a runner trains; its public property would build the loop."""
    return isinstance(runner._train_loop, BaseLoop)


def visible_keys(raw: dict[str, Any]) -> set[str]:
    """Return the keys of a file's state dict as mmengine sees them."""
    return {key.removeprefix(PARALLEL_PREFIX) for key in raw.get('state_dict', raw)}
