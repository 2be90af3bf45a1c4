"""Resumed training that continues exactly where it stopped, random numbers included."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dataset import worker_init_fn
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, get_worker_info

from mmuniformer.registry import HOOKS

KEY = 'random_state'
"""Name of the state in a checkpoint."""


def get_random_state() -> dict[str, Any]:
    """Return the state of Python's, NumPy's and torch's generators (CPU, current CUDA device).

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
    """Set the generators to a state that ``get_random_state`` returned."""
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
    - seeds the loader's workers in each epoch from the run's seed and the epoch, without a restart
      (``EpochSeeds``). Otherwise a resumed run would draw as the first epoch did.

    The result is exact where the computation is deterministic, in one process, when training
    resumes from a checkpoint at the end of an epoch (epoch-based loops) or of any iteration
    (iteration-based loops, which need the run's ``randomness=dict(seed=...)`` to be fixed).
    Not part of a checkpoint: gradients accumulated over the end of an epoch, samples that a
    transform keeps (``CachedMosaic``).

    Example:
        >>> custom_hooks = [dict(type='mmuniformer.RandomStateHook')]
    """

    # First: what other hooks draw at the same place, they draw in both runs.
    priority = 'VERY_HIGH'

    def __init__(self):
        self.loaded: dict[str, Any] | None = None
        self.before_validation: dict[str, Any] | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the state, and the seed that samples are shuffled by."""
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
        loop.dataloader_iterator = ResumedBatches(loop.dataloader_iterator, runner.iter, state)

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
    init = loader.worker_init_fn
    if loader.num_workers and getattr(init, 'func', None) is worker_init_fn:
        loader.worker_init_fn = init = EpochSeeds(init, seed)
        # Persistent workers that run already have been started without it.
        loader._iterator = None
    if isinstance(init, EpochSeeds):
        init.epoch.fill_(epoch)
    # torch draws a seed for an iterator, which persistent workers share in all epochs of a run: a
    # draw from the state that was restored would be one more than without the interruption.
    loader.generator = torch.Generator().manual_seed(seed + epoch)


class EpochSeeds:
    """A ``worker_init_fn`` that seeds running workers anew when the epoch changes.

    Persistent workers are started once and hear nothing of epochs. So the epoch lies in shared
    memory, and in each worker process, nowhere else, the dataset looks at it before it loads a
    sample.

    Args:
        init: mmengine's ``worker_init_fn`` with the arguments of this loader.
        seed: The run's seed.
    """

    def __init__(self, init: partial, seed: int):
        self.init, self.seed = init, seed
        self.stride = init.keywords['num_workers'] * get_world_size()
        self.epoch = torch.full((), -1).share_memory_()

    def __call__(self, worker: int) -> None:
        """Seed a new worker process, and let its dataset do so in later epochs."""
        self.worker, self.seeded = worker, None
        self.follow_epoch()
        dataset = get_worker_info().dataset
        kind = type(dataset)

        def seeded(load: Callable[..., Any]) -> Callable[..., Any]:
            def seed_and_load(dataset: Any, index: Any) -> Any:
                self.follow_epoch()
                return load(dataset, index)

            return seed_and_load

        names = [name for name in ('__getitem__', '__getitems__') if hasattr(kind, name)]
        methods = {name: seeded(getattr(kind, name)) for name in names}
        with contextlib.suppress(TypeError):  # built-in types, which draw nothing
            dataset.__class__ = type(kind.__name__, (kind,), {'__slots__': (), **methods})

    def follow_epoch(self) -> None:
        """Seed this worker process if the epoch has changed."""
        epoch = self.epoch.item()
        if epoch != self.seeded:
            self.init(self.worker, seed=(self.seed + epoch * self.stride) % 2**31)
            self.seeded = epoch


class ResumedBatches:
    """Batches that go on in a random state, after those that were trained on are skipped.

    Args:
        batches: Where the batches come from, from the first on.
        count: Batches to skip.
        state: As ``get_random_state`` returned it; set right before the batch after these.
    """

    def __init__(self, batches: Iterator[Any], count: int, state: dict[str, Any]):
        self.batches, self.count, self.state = batches, count, state

    def __iter__(self) -> ResumedBatches:
        """Return the iterator itself."""
        return self

    def __next__(self) -> Any:
        """Return the next batch."""
        if self.count == 0:
            set_random_state(self.state)
        self.count -= 1
        return next(self.batches)

    def skip_iter(self, count: int) -> None:
        """Skip batches, as the training loop of some forks of mmengine asks.

        They are loaded one by one, so that workers draw as they did.
        """
        for _ in range(count):
            next(self)
