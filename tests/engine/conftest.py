"""A network that trains in milliseconds under CheckedRunner, with all that is random in it."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS
from torch import nn

from mmuniformer.engine.runner import CheckedRunner


class Small(BaseModel):
    """BatchNorm, dropout, and a loss of two terms."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        x = nn.functional.dropout(self.norm(self.first(torch.stack(inputs))), 0.3, self.training)
        score = self.last(x)
        if mode == 'loss':
            return {'loss_size': score.square().mean(), 'loss_sign': (1 - score).exp().mean() / 10}
        return [SimpleNamespace(score=each.item()) for each in score]


class Augmented(list):
    """Eight samples with noise, each with the name of an image; one is spoiled at times."""

    spoiled, value = (), float('nan')

    def __init__(self):
        super().__init__(range(8))
        self.calls = 0

    def __getitem__(self, index):
        inputs = torch.full((3,), index / 8) + torch.rand(3) / 4
        if self.calls in self.spoiled:
            inputs = inputs * self.value
        self.calls += 1
        return {'inputs': inputs, 'data_samples': SimpleNamespace(img_path=f'{index}.jpg')}


class Calls(BaseMetric):
    """Counts the batches it was given."""

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'count': len(results)}


@pytest.fixture
def train(tmp_path):
    """Train for some epochs or iterations, two batches of four an epoch; return the runner."""
    DATASETS.register_module(name='Augmented', module=Augmented, force=True)
    METRICS.register_module(name='Calls', module=Calls, force=True)
    made = []

    def run(folder='work', epochs=3, by_epoch=True, hooks=(), spoiled=(), before=None, **options):
        loader = {
            'batch_size': 4,
            'num_workers': options.pop('workers', 0),
            'dataset': {'type': 'Augmented'},
            'sampler': {'type': 'DefaultSampler' if by_epoch else 'InfiniteSampler'},
        }
        length = {'max_epochs': epochs} if by_epoch else {'max_iters': 2 * epochs}
        validation = {}
        if options.pop('val', False):
            validation = {
                'val_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler'}},
                'val_cfg': {},
                'val_evaluator': {'type': 'Calls'},
            }
        checkpoint = {'type': 'CheckpointHook', 'by_epoch': by_epoch, 'interval': 100}
        default_hooks = {
            'checkpoint': {**checkpoint, **options.pop('checkpoint', {})},
            'interrupt': {'type': 'mmuniformer.InterruptHook'},
            'finite': {'type': 'mmuniformer.FiniteHook', **options.pop('finite', {})},
        }
        torch.manual_seed(0)
        runner = CheckedRunner(
            Small(),
            str(tmp_path / folder),
            train_dataloader=loader,
            train_cfg={'by_epoch': by_epoch, 'val_interval': 1, **length},
            optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.1}, **options.pop('wrapper', {})},
            default_hooks=default_hooks,
            custom_hooks=[{'type': 'mmuniformer.RandomStateHook'}, *hooks],
            randomness={'seed': 3},
            experiment_name=f'{tmp_path.name}_{len(made)}',
            default_scope='mmengine',
            **{'log_level': 'ERROR', **validation, **options},
        )
        made.append(runner)
        Augmented.spoiled = spoiled
        if before:
            before(runner)
        runner.train()
        return runner

    run.made = made
    return run
