"""RandomStateHook: a resumed run is the uninterrupted one, in both loops, also with workers."""

from __future__ import annotations

import contextlib
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
    get_random_state,
    restored_after,
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


def test_state_is_set_right_before_the_batch_after_the_skipped_ones():
    state = get_random_state()
    expected = draw()
    drawn = restored_after(iter(draw, None), 2, state)
    assert next(drawn) != expected
    assert next(drawn) != expected
    assert next(drawn) == expected


class Stop(Exception):
    pass


class Recorder(Hook):
    """Keeps every iteration's loss, and breaks off before iteration ``stop``."""

    priority = 'LOWEST'

    def __init__(self, stop=None):
        self.losses, self.stop = [], stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop:
            raise Stop

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


class Samples(torch.utils.data.Dataset):
    """Index and augmentation: each of the three generators gives a number."""

    def __len__(self):
        return 4 * BATCHES

    def __getitem__(self, index):
        return {'inputs': torch.tensor([index, random.random(), np.random.rand(), torch.rand(())])}


class Dropping(BaseModel):
    """Dropout in training; draws in validation, too, as some models do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, inputs, mode='tensor'):
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
    """Train; returns the losses and the checkpoint folder."""
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
        # Workers left to the garbage collector would be waited for, five seconds each.
        runner.train_loop.dataloader_iterator = None
        runner.train_dataloader._iterator = None
        name = f'epoch_{HALF // BATCHES}.pth' if by_epoch else f'iter_{HALF}.pth'
        return recorder.losses, str(folder / name)

    return run


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_resumed_losses_are_those_of_an_uninterrupted_run(train, by_epoch, workers):
    whole, _ = train(by_epoch, workers)
    begun, checkpoint = train(by_epoch, workers, stop=HALF)
    np.random.seed(1)
    resumed, _ = train(by_epoch, workers, resume_from=checkpoint)
    assert len(whole) == ITERATIONS
    assert len(set(whole)) == ITERATIONS
    assert begun + resumed == whole


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iterations'])
def test_without_the_hook_they_differ(train, by_epoch):
    whole, _ = train(by_epoch, 0, hook=False)
    begun, checkpoint = train(by_epoch, 0, hook=False, stop=HALF)
    resumed, _ = train(by_epoch, 0, hook=False, resume_from=checkpoint)
    assert begun == whole[:HALF]
    assert resumed[0] != whole[HALF]


def test_epochs_go_on_exactly_where_the_seed_was_random(train):
    whole, checkpoint = train(True, 0, seed=None)
    resumed, _ = train(True, 0, seed=None, resume_from=checkpoint)
    assert resumed == whole[HALF:]


def test_iterations_with_another_seed_warn(train, capsys):
    _, checkpoint = train(False, 0, stop=HALF)
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
def test_workers_draw_by_seed_and_epoch(persistent):
    loader = torch.utils.data.DataLoader(
        Samples(),
        num_workers=1,
        persistent_workers=persistent,
        worker_init_fn=partial(worker_init_fn, num_workers=1, rank=0, seed=5),
    )

    def epoch(number, seed=5):
        seed_workers(loader, seed, number)
        return torch.cat([batch['inputs'] for batch in loader])

    first, second = epoch(0), epoch(1)
    assert torch.equal(first[:, 0], second[:, 0])
    assert (first[:, 1:3] != second[:, 1:3]).all()
    assert torch.equal(epoch(0)[:, 1:3], first[:, 1:3])
    assert not torch.equal(epoch(0, seed=7)[:, 1:3], first[:, 1:3])


def test_seeding_of_workers_that_a_config_brings_stays():
    def own(worker):
        torch.manual_seed(worker)

    loader = torch.utils.data.DataLoader(Samples(), num_workers=1, worker_init_fn=own)
    seed_workers(loader, 0, 1)
    assert loader.worker_init_fn is own
