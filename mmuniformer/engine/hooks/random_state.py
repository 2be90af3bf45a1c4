"""Resumed training that continues exactly where it stopped, random numbers included."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, get_worker_info

from mmuniformer.engine.workers import PatientWorker
from mmuniformer.registry import HOOKS


def get_random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's generators; ``weights_only`` loads it."""
    kind, keys, *rest = np.random.get_state()
    state = {
        'python': random.getstate(),
        'numpy': [kind, keys.tolist(), *rest],
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to a state that ``get_random_state`` returned."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state['numpy']))
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
    - seeds the loader's workers in each epoch from the run's seed and the epoch, without a restart.
      Otherwise a resumed run would draw as the first epoch did.

    The result is exact where the computation is deterministic, in one process, when training
    resumes from a checkpoint at the end of an epoch or of any iteration (iteration-based loops need
    the run's ``randomness=dict(seed=...)`` to be fixed; epoch-based ones go on in the middle of an
    epoch under ``CheckedRunner``).
    Not part of a checkpoint: gradients accumulated over the end of an epoch, samples that a
    transform keeps (``CachedMosaic``).
    """

    # First: what other hooks draw at the same place, they draw in both runs.
    priority = 'VERY_HIGH'

    def __init__(self):
        self.loaded: dict[str, Any] | None = None
        self.resumed: dict[str, Any] | None = None
        self.before_validation: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state, and the seed that samples are shuffled by."""
        seed = getattr(sampler_of(runner.train_dataloader), 'seed', None)
        checkpoint['random_state'] = {**get_random_state(), 'sampler_seed': seed}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Keep the state until training begins."""
        self.loaded = checkpoint.get('random_state')
        if self.loaded is not None and not is_main_process():
            # The state in a file is the main process's: others would draw the same as that one.
            self.loaded = {**self.loaded, **get_random_state()}

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the state on resume, and seed the workers of this epoch."""
        state, self.loaded = self.loaded if runner.iter > 0 else None, None
        self.resumed = state
        loop, sampler = runner.train_loop, sampler_of(runner.train_dataloader)
        seed = getattr(sampler, 'seed', None)
        if not isinstance(loop, IterBasedTrainLoop):
            if state is not None:
                if seed is not None:
                    sampler.seed = state['sampler_seed']
                set_random_state(state)
            seed_workers(runner.train_dataloader, runner.seed, runner.epoch)
        elif state is not None:
            # The loop is about to load again, and skip, what was trained on.
            loop.dataloader_iterator = ResumedBatches(loop.dataloader_iterator, runner.iter, state)
            if seed != state['sampler_seed']:
                runner.logger.warning(
                    'samples come in another order than before the interruption: to go on exactly, '
                    f'set randomness.seed={state["sampler_seed"]}'
                )

    def before_resumed_batch(self, runner: Runner) -> None:
        """Restore the state again, after the batches before it have been loaded and dropped."""
        if self.resumed is not None:
            set_random_state(self.resumed)

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
    """Let a loader's workers draw by the seed and the epoch; a custom ``worker_init_fn`` stays."""
    patient = isinstance(loader.worker_init_fn, PatientWorker)
    owner, name = (loader.worker_init_fn, 'init') if patient else (loader, 'worker_init_fn')
    init = getattr(owner, name)
    if loader.num_workers and getattr(init, 'func', None) is worker_init_fn:
        init = EpochSeeds(init, seed)
        setattr(owner, name, init)
    if isinstance(init, EpochSeeds):
        init.epoch.fill_(epoch)
    # torch draws a seed for an iterator, which persistent workers share in all epochs of a run: a
    # draw from the state that was restored would be one more than without the interruption.
    loader.generator = torch.Generator().manual_seed(seed + epoch)


class EpochSeeds:
    """A ``worker_init_fn`` whose workers seed themselves anew when the epoch changes.

    Persistent workers hear nothing of epochs: it lies in shared memory, where they look.
    """

    def __init__(self, init: partial, seed: int):
        self.init, self.seed = init, seed
        self.stride = init.keywords['num_workers'] * get_world_size()
        self.epoch = torch.tensor(0).share_memory_()

    def __call__(self, worker: int) -> None:
        """Let a new worker load its batches through a function that seeds it in each epoch."""
        dataset, seeded = get_worker_info().dataset, None
        load = getattr(dataset, '__getitems__', None)

        def seed_and_load(batch: list[Any]) -> list[Any]:
            nonlocal seeded
            epoch = self.epoch.item()
            if epoch != seeded:
                self.init(worker, seed=(self.seed + epoch * self.stride) % 2**31)
                seeded = epoch
            return load(batch) if load else [dataset[index] for index in batch]

        # torch loads a batch by this method of a dataset, if there is one.
        with contextlib.suppress(AttributeError):  # built-in types, which draw nothing
            dataset.__getitems__ = seed_and_load


class ResumedBatches:
    """Batches from the first on that set a random state right before the one after ``count``."""

    def __init__(self, batches: Iterator[Any], count: int, state: dict[str, Any]):
        self.batches, self.count, self.state = batches, count, state

    def __next__(self) -> Any:
        """Return the next batch."""
        if self.count == 0:
            set_random_state(self.state)
        self.count -= 1
        return next(self.batches)

    def skip_iter(self, count: int) -> None:
        """Load batches and drop them, as the loop of the onedl fork of mmengine asks."""
        for _ in range(count):
            next(self)
