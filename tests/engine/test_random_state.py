"""RandomStateHook: a resumed run is the uninterrupted one, in both loops, also with workers."""

from __future__ import annotations

import contextlib
import os
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import worker_init_fn
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmuniformer.engine.hooks.random_state import (
    RandomStateHook,
    ResumedBatches,
    get_random_state,
    seed_workers,
    set_random_state,
)

EPOCHS, BATCHES = 4, 3
ITERATIONS = EPOCHS * BATCHES
HALF = ITERATIONS // 2


def draw():
    return [random.random(), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_state_comes_back_also_through_a_file(tmp_path):
    np.random.randn()  # leaves half of a pair behind, which is part of numpy's state
    state = get_random_state()
    torch.save(state, tmp_path / 'state.pth')
    expected = [draw() for _ in range(3)]
    set_random_state(state)
    assert [draw() for _ in range(3)] == expected
    set_random_state(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert [draw() for _ in range(3)] == expected
    assert [draw() for _ in range(3)] != expected


def next_batches(batches, count):
    for _ in range(count):
        next(batches)


@pytest.mark.parametrize('skip', [next_batches, ResumedBatches.skip_iter], ids=['next', 'fork'])
def test_state_is_set_right_before_the_batch_after_the_skipped_ones(skip):
    """A training loop skips batches by ``next``, that of the onedl fork by ``skip_iter``."""
    loaded = []

    def load():
        loaded.append(draw())
        return loaded[-1]

    state = get_random_state()
    expected = draw()
    batches = ResumedBatches(iter(load, None), 2, state)
    skip(batches, 2)
    assert len(loaded) == 2
    assert expected not in loaded
    assert next(batches) == expected
    assert next(batches) != expected  # set once


class Stop(Exception):
    pass


class Recorder(Hook):
    """Keeps losses and the processes that loaded samples; breaks off before iteration ``stop``."""

    priority = 'LOWEST'

    def __init__(self, stop=None):
        self.losses, self.loaders, self.stop = [], set(), stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise Stop
        self.loaders.update(data_batch['process'])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


class Samples(torch.utils.data.Dataset):
    """Index and augmentation: each of the three generators gives a number."""

    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, index):
        drawn = [random.random(), np.random.rand(), torch.rand(())]
        return {'inputs': torch.tensor([index, *drawn]), 'process': os.getpid()}


class Dropping(BaseModel):
    """Dropout in training; draws in validation, too, as some models do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, inputs, process, mode='tensor'):
        out = self.layers(torch.stack(inputs))
        if mode == 'predict':
            draw()
            return list(out)
        return {'loss': out.square().mean()}


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return {'nothing': 0}


@pytest.fixture
def train(tmp_path):
    """Train; returns the losses, the final weights and a checkpoint from halfway."""
    number = iter(range(100))
    for registry, kind in ((DATASETS, Samples), (MODELS, Dropping), (METRICS, Nothing)):
        registry.register_module(name=f'RandomState{kind.__name__}', module=kind, force=True)

    def loader(workers, shuffle, infinite=False):
        return {
            'batch_size': 4,
            'num_workers': workers,
            'persistent_workers': workers > 0,
            'sampler': {'type': 'InfiniteSampler' if infinite else 'DefaultSampler',
                        'shuffle': shuffle},
            'dataset': {'type': 'RandomStateSamples'},
        }  # fmt: skip

    def run(by_epoch, workers, resume_from=None, stop=None, hook=True, seed=0):
        folder = tmp_path / str(next(number))
        recorder = Recorder(stop)
        length = {'max_epochs': EPOCHS} if by_epoch else {'max_iters': ITERATIONS}
        runner = Runner(
            model={'type': 'RandomStateDropping'},
            work_dir=str(folder),
            train_dataloader=loader(workers, shuffle=True, infinite=not by_epoch),
            val_dataloader=loader(0, shuffle=False),
            train_cfg={'by_epoch': by_epoch, 'val_interval': 1 if by_epoch else BATCHES, **length},
            val_cfg={},
            val_evaluator={'type': 'RandomStateNothing'},
            optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
            default_hooks={
                'checkpoint': {
                    'type': 'CheckpointHook',
                    'interval': 1 if by_epoch else HALF,
                    'by_epoch': by_epoch,
                },
                'logger': None,
            },
            custom_hooks=[{'type': 'mmuniformer.RandomStateHook'}] * hook + [recorder],
            load_from=resume_from,
            resume=resume_from is not None,
            randomness={'seed': seed},
            experiment_name=str(folder),
            visualizer={'type': 'Visualizer', 'name': str(folder)},
            log_level='WARNING',
        )
        with contextlib.suppress(Stop):
            runner.train()
        assert runner.iter == (stop or ITERATIONS)
        assert len(recorder.loaders) == max(workers, 1)
        assert (os.getpid() in recorder.loaders) == (workers == 0)
        # Workers left to the garbage collector would be waited for, five seconds each.
        runner.train_loop.dataloader_iterator = None
        runner.train_dataloader._iterator = None
        name = f'epoch_{HALF // BATCHES}.pth' if by_epoch else f'iter_{HALF}.pth'
        return recorder.losses, runner.model.state_dict(), str(folder / name)

    return run


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_resumed_run_equals_an_uninterrupted_one(train, by_epoch, workers):
    whole, weights, _ = train(by_epoch, workers)
    begun, _, checkpoint = train(by_epoch, workers, stop=HALF)
    np.random.seed(1)
    resumed, resumed_weights, _ = train(by_epoch, workers, resume_from=checkpoint)
    assert len(whole) == ITERATIONS
    assert len(set(whole)) == ITERATIONS
    assert begun + resumed == whole
    for name, value in weights.items():
        assert torch.equal(resumed_weights[name], value), name


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_without_the_hook_they_differ(train, by_epoch):
    whole, *_ = train(by_epoch, 0, hook=False)
    begun, _, checkpoint = train(by_epoch, 0, hook=False, stop=HALF)
    resumed, *_ = train(by_epoch, 0, hook=False, resume_from=checkpoint)
    assert begun == whole[:HALF]
    assert resumed[0] != whole[HALF]


def test_epochs_go_on_exactly_where_the_seed_was_random(train):
    whole, _, checkpoint = train(True, 0, seed=None)
    resumed, *_ = train(True, 0, seed=None, resume_from=checkpoint)
    assert resumed == whole[HALF:]


def test_iterations_with_another_seed_warn(train, capsys):
    *_, checkpoint = train(False, 0, stop=HALF)
    train(False, 0, seed=1, resume_from=checkpoint)
    assert 'to go on exactly, set randomness.seed=0' in capsys.readouterr().out


def test_fine_tuning_from_a_checkpoint_does_not_take_its_state():
    """``load_from`` without ``resume`` starts anew, from the run's own seed."""
    loader = torch.utils.data.DataLoader(Samples())
    runner = SimpleNamespace(iter=0, epoch=0, seed=0, train_loop=None, train_dataloader=loader)
    hook, state = RandomStateHook(), get_random_state()
    hook.after_load_checkpoint(runner, {'random_state': {**state, 'sampler_seed': 0}})
    expected = draw()
    set_random_state(state)
    draw()
    hook.before_train_epoch(runner)
    assert draw() != expected
    runner.iter = 1  # the state is not kept for later epochs either
    hook.before_train_epoch(runner)
    assert draw() != expected


@pytest.mark.parametrize('persistent', [True, False])
@pytest.mark.parametrize('subset', [False, True])
def test_workers_draw_by_seed_and_epoch(persistent, subset):
    samples = Samples()
    if subset:  # torch loads a batch of these by one call
        samples = torch.utils.data.Subset(samples, range(len(samples)))

    def loader():
        return torch.utils.data.DataLoader(
            samples,
            num_workers=2,
            persistent_workers=persistent,
            worker_init_fn=partial(worker_init_fn, num_workers=2, rank=0, seed=5),
        )

    def epoch(loader, number, seed=5):
        seed_workers(loader, seed, number)
        batches = list(loader)
        return (
            torch.cat([batch['inputs'] for batch in batches])[:, :3],
            {batch['process'].item() for batch in batches},
        )

    one, other = loader(), loader()
    (first, processes), (second, later_processes) = epoch(one, 0), epoch(one, 1)
    assert torch.equal(first[:, 0], second[:, 0])
    assert (first[:, 1:] != second[:, 1:]).all()
    assert len(processes) == 2
    assert (processes == later_processes) == persistent
    assert torch.equal(epoch(other, 1)[0], second)  # as a resumed run draws
    assert torch.equal(epoch(other, 0)[0], first)
    assert not torch.equal(epoch(loader(), 0, seed=8)[0], first)


SPAWNED = """
from functools import partial
import torch
from mmengine.dataset import worker_init_fn
from mmuniformer.engine.hooks.random_state import seed_workers

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.rand(())

if __name__ == '__main__':
    init = partial(worker_init_fn, num_workers=1, rank=0, seed=0)
    loader = torch.utils.data.DataLoader(
        Samples(), num_workers=1, persistent_workers=True, worker_init_fn=init,
        multiprocessing_context='spawn',
    )
    for epoch in (0, 1):
        seed_workers(loader, 3, epoch)
        print(*(batch.item() for batch in loader))
"""


@pytest.mark.slow
def test_spawned_workers_see_the_epoch(run_python, tmp_path):
    (tmp_path / 'spawned.py').write_text(SPAWNED)
    done = run_python('spawned.py')
    expected = []
    for seed in (3, 4):
        generator = torch.Generator().manual_seed(seed)
        expected += [torch.rand((), generator=generator).item() for _ in range(2)]
    assert [float(word) for word in done.stdout.split()] == expected, done.stderr[-2000:]


def test_restored_state_is_not_drawn_from_to_start_workers():
    """Workers start in the first epoch of a run, whichever that is."""
    loader = torch.utils.data.DataLoader(Samples(), num_workers=1)
    state = get_random_state()
    expected = draw()
    set_random_state(state)
    seed_workers(loader, 0, 1)
    iter(loader)
    assert draw() == expected


def test_seeding_of_workers_that_a_config_brings_stays():
    def own(worker):
        torch.manual_seed(worker)

    loader = torch.utils.data.DataLoader(Samples(), num_workers=1, worker_init_fn=own)
    seed_workers(loader, 0, 1)
    assert loader.worker_init_fn is own


def test_loader_without_workers_needs_no_number_of_them():
    init = partial(worker_init_fn, num_workers=None, rank=0, seed=0)  # as mmengine leaves it
    loader = torch.utils.data.DataLoader(Samples(), worker_init_fn=init)
    seed_workers(loader, 0, 1)
    assert loader.worker_init_fn is init


def test_other_processes_keep_their_own_state(monkeypatch):
    """A checkpoint holds the main process's; all would draw alike by it."""
    loader = torch.utils.data.DataLoader(Samples())
    runner = SimpleNamespace(iter=1, epoch=1, seed=0, train_loop=None, train_dataloader=loader)
    hook, saved = RandomStateHook(), get_random_state()
    monkeypatch.setattr('mmuniformer.engine.hooks.random_state.is_main_process', lambda: False)
    draw()
    own = get_random_state()
    expected = draw()
    set_random_state(own)
    hook.after_load_checkpoint(runner, {'random_state': {**saved, 'sampler_seed': 0}})
    hook.before_train_epoch(runner)
    assert draw() == expected
