"""Resumed training that continues exactly where it stopped, random numbers included."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmuniformer.registry import HOOKS

KEY = 'random_state'
"""Name of the state in a checkpoint."""


def get_random_state() -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's generators (CPU, current CUDA device).

    Only tensors, lists and numbers, which torch loads with ``weights_only``.
    """
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    state = {
        'python': [version, list(words), gauss],
        'numpy': [kind, keys.tolist(), *rest],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators into a state that ``get_random_state`` returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Make resumed training the same as training that was never interrupted.

    mmengine restores weights, optimizer, schedule and the order of samples, but not the random
    generators that drop path, dropout and augmentation draw from. This hook

    - writes their state into checkpoints and restores it on resume;
    - makes validation leave no trace in it, as a resumed run does not repeat the validation;
    - starts the workers of an epoch from the run's seed and the epoch. Without, they would start a
      resumed run as they did the first epoch.

    The result is exact where the computation is deterministic, in one process, when training
    resumes from a checkpoint at the end of an epoch (epoch-based loops) or of any iteration
    (iteration-based loops, which need the run's ``randomness=dict(seed=...)`` to be fixed).
    Gradients accumulated over the end of an epoch are not part of a checkpoint.

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.RandomStateHook')]
    """

    # First: what other hooks draw at the same place, they draw in both runs.
    priority = 'VERY_HIGH'

    def __init__(self):
        self.loaded: dict[str, Any] | None = None
        self.before_validation: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state, and the seed by which samples are shuffled."""
        seed = getattr(sampler_of(runner.train_dataloader), 'seed', None)
        checkpoint[KEY] = {**get_random_state(), 'sampler_seed': seed}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training begins."""
        self.loaded = checkpoint.get(KEY)

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the state on resume, then seed this epoch's workers."""
        resumed = runner.iter > 0 and self.loaded is not None
        state, self.loaded = self.loaded, None
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            if resumed:
                self.resume_iterations(runner, state)
            return
        if resumed:
            sampler = sampler_of(runner.train_dataloader)
            if hasattr(sampler, 'seed'):
                sampler.seed = state['sampler_seed']
            set_random_state(state)
        seed_workers(runner.train_dataloader, runner.seed, runner.epoch)

    def resume_iterations(self, runner: Runner, state: dict[str, Any]) -> None:
        """Restore the state after the loop has skipped the batches that were trained on."""
        loop = runner.train_loop
        seed = getattr(sampler_of(loop.dataloader), 'seed', None)
        if seed != state['sampler_seed']:
            runner.logger.warning(
                f'samples come in another order than before the interruption (seed {seed}, not '
                f'{state["sampler_seed"]}): to go on exactly, set randomness.seed='
                f'{state["sampler_seed"]}'
            )
        loop.dataloader_iterator = restored_after(loop.dataloader_iterator, runner.iter, state)

    def before_val_epoch(self, runner: Runner) -> None:
        """Remember the state, in training runs and others."""
        self.before_validation = get_random_state()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Go back to the state before the validation."""
        set_random_state(self.before_validation)


def sampler_of(loader: DataLoader) -> Any:
    """Return the sampler that orders a loader's samples."""
    return loader.batch_sampler.sampler


def seed_workers(loader: DataLoader, seed: int, epoch: int) -> None:
    """Let a loader start new workers, seeded by the epoch; a custom ``worker_init_fn`` stays."""
    init = loader.worker_init_fn
    if not loader.num_workers or getattr(init, 'func', None) is not worker_init_fn:
        return
    seed += epoch * loader.num_workers * get_world_size()
    loader.worker_init_fn = partial(init, seed=seed % 2**32)
    # Persistent workers were seeded once; without an iterator the loader starts others.
    loader._iterator = None


def restored_after(batches: Iterator[Any], count: int, state: dict[str, Any]) -> Iterator[Any]:
    """Yield batches as they come, with the state set right before the one after ``count``."""
    for _ in range(count):
        yield next(batches)
    set_random_state(state)
    yield from batches
