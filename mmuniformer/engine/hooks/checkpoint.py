"""mmengine's CheckpointHook, which loses the old file only when the new one is there."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from mmengine import hooks
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmuniformer.engine.saving import point_to, remove_leftovers
from mmuniformer.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(hooks.CheckpointHook):
    """Save as mmengine's hook does, and keep the last good checkpoint whatever happens.

    mmengine removes what ``max_keep_ckpts`` and ``save_best`` make superfluous before it writes
    the new file: on a full disk nothing is left. Here it goes afterwards, so that there must be
    room for one more. ``last_checkpoint`` is replaced in one step, too. ``CheckedRunner`` takes
    this hook wherever a config says ``CheckpointHook``.

    Example:
        >>> default_hooks = dict(checkpoint=dict(type='mmuniformer.CheckpointHook', interval=1))
    """

    def before_train(self, runner: Runner) -> None:
        """Prepare as mmengine does; clear up after runs that were killed while they saved."""
        super().before_train(runner)
        self.file_backend = RemovesLater(self.file_backend)
        if is_main_process() and '://' not in str(self.out_dir):
            remove_leftovers(self.out_dir)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if self.max_keep_ckpts > 0 and step not in list(self.keep_ckpt_ids)[-1:]:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                self.file_backend.remove(self.file_backend.join_path(self.out_dir, outdated))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = path
        runner.message_hub.update_info('last_ckpt', path)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            point_to(runner.work_dir, path)
            self.file_backend.remove_outdated(keep=self.kept())

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if self.save_best and is_main_process():
            self.file_backend.remove_outdated(keep=self.kept())

    def kept(self) -> list[str | None]:
        """Return the last checkpoint and the best ones: a new file can have an old one's name."""
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        return [self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best]


class RemovesLater:
    """A file backend that removes nothing until it is told that newer files are there."""

    def __init__(self, backend: Any):
        self.backend, self.outdated = backend, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Remember a file, or a folder."""
        self.outdated.append(path)

    rmtree = remove

    def remove_outdated(self, keep: Container[str | None]) -> None:
        """Remove what was remembered."""
        while self.outdated:
            path = self.outdated.pop()
            if path in keep:
                continue
            if self.backend.isfile(path):
                self.backend.remove(path)
            elif self.backend.isdir(path):  # as deepspeed writes checkpoints
                self.backend.rmtree(path)
