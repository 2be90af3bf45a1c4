"""A hook that saves the state of a run that is told to end, so that it can go on exactly."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner

from mmuniformer.engine.distributed import highest
from mmuniformer.engine.hooks.random_state import RandomStateHook
from mmuniformer.engine.loops import EpochLoop
from mmuniformer.engine.saving import INTERRUPTED, point_to
from mmuniformer.registry import HOOKS

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what slurm and spot machines send."""

INSISTED = 2
"""Seconds after which a second signal ends the run at once: launchers repeat what they pass on."""

TELLING = 10
"""Seconds for which a process that fails outlasts SIGTERM: torchrun sends it as soon as one of the
processes has ended, and the others would not say why they ended."""


@HOOKS.register_module()
class InterruptHook(Hook):
    """On Ctrl-C or SIGTERM finish the iteration, save the state and end.

    The state goes to ``interrupted.pth`` in the work dir; ``--resume`` goes on from it exactly. The
    process ends with status 130 (Ctrl-C) or 143 (SIGTERM). A second signal, two seconds later or
    more, ends it at once. A validation that is interrupted is not repeated.

    Example:
        >>> default_hooks = dict(interrupt=dict(type='mmuniformer.InterruptHook'))
    """

    # Last: what other hooks do after an iteration belongs to the state.
    priority = 'LOWEST'

    def __init__(self):
        self.received, self.since = 0, 0.0
        self.former: dict[int, Any] = {}

    def before_run(self, runner: Runner) -> None:
        """Have the loop give the signals back however it ends: no hook is called on errors."""
        loop = runner._train_loop
        if isinstance(loop, BaseLoop):
            run = loop.run

            @functools.wraps(run)
            def releasing(*args: Any, **kwargs: Any) -> Any:
                try:
                    return run(*args, **kwargs)
                except Exception:
                    if get_world_size() > 1 and signal.SIGTERM in self.former:
                        self.former[signal.SIGTERM] = delayed(self.former[signal.SIGTERM])
                    raise
                finally:
                    self.release_signals()

            loop.run = releasing

    def before_train(self, runner: Runner) -> None:
        """Take over the signals; Python lets the main thread do so only.

        A handler of C code (None) could not be given back, and stays.
        """
        self.received = 0
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not None:
                    self.former[number] = signal.signal(number, self.note)

    def release_signals(self) -> None:
        """Give the signals back."""
        while self.former:
            signal.signal(*self.former.popitem())

    def note(self, number: int, frame: Any) -> None:
        """Remember a signal until the iteration is over."""
        if not self.received:
            self.received, self.since = number, time.monotonic()
            name = signal.Signals(number).name
            line = f'\n{name}: saving after this iteration; once more ends at once\n'
            with contextlib.suppress(OSError):  # as the terminal is gone
                os.write(2, line.encode())  # a print could meet a print that it interrupts
        elif time.monotonic() - self.since > INSISTED:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else
                          signal.default_int_handler)  # fmt: skip
            signal.raise_signal(number)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Let the loop go on in the middle of an epoch."""
        loop = runner._train_loop
        if runner._resume and isinstance(loop, EpochLoop):
            done, total = checkpoint.get('meta', {}).get('batches_done', (0, 0))
            if done and total != len(loop.dataloader):
                runner.logger.warning(
                    f'the run was interrupted after {done} of {total} batches of an epoch, which '
                    f'has {len(loop.dataloader)} now: this epoch begins anew'
                )
                done = 0
            loop.first_batch = done

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and end, if a signal came to any process and no gradients are being accumulated."""
        number = highest(self.received)
        wrapper = runner.optim_wrapper
        if number and not (isinstance(wrapper, OptimWrapper) and not wrapper.should_update()):
            done = batch_idx + 1 if isinstance(runner.train_loop, EpochLoop) else 0
            self.end(runner, number, runner.iter + 1, done)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Leave a validation in training: save the state from before it."""
        if not isinstance(runner._train_loop, BaseLoop) or not self.former:
            return
        loader = runner.val_dataloader
        in_step = get_world_size() == 1 or getattr(loader.sampler, 'round_up', False)
        number = highest(self.received) if in_step else 0
        if number:
            for hook in runner.hooks:  # they have put other weights and random states in
                if isinstance(hook, (EMAHook, RandomStateHook)):
                    hook.after_val_epoch(runner, {})
            self.end(runner, number, runner.iter, 0)

    def end(self, runner: Runner, number: int, iteration: int, done: int) -> None:
        """Save, and leave the run as the signal would have."""
        path = save_state(runner, iteration, done)
        name = signal.Signals(number).name
        text = f'{name}: the state of iteration {iteration} is saved in {path}; --resume goes on'
        runner.logger.warning(text)
        raise KeyboardInterrupt(text) if number == signal.SIGINT else SystemExit(128 + number)


def delayed(handler: Any) -> Callable[[int, Any], None]:
    """Return a handler that hands on to another one, but only after ``TELLING`` seconds."""
    start = time.monotonic()

    def handle(number: int, frame: Any) -> None:
        if time.monotonic() - start > TELLING:
            signal.signal(number, handler)
            signal.raise_signal(number)

    return handle


def save_state(runner: Runner, iteration: int, done: int) -> str:
    """Save the state of a run between two checkpoints as its last one.

    Args:
        runner: What trains.
        iteration: Iterations that the weights have seen.
        done: Batches that they have seen of the epoch.
    """
    meta = {'epoch': runner.epoch, 'iter': iteration}
    if done:
        meta['batches_done'] = [done, len(runner.train_dataloader)]
    runner.save_checkpoint(runner.work_dir, INTERRUPTED, meta=meta, by_epoch=False)
    path = os.path.join(runner.work_dir, INTERRUPTED)
    if is_main_process():
        point_to(runner.work_dir, path)
    barrier()
    return path
