"""The runner that looks at checkpoints and data first, and explains what mmengine cannot load."""

from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import DATASETS, RUNNERS
from mmengine.runner import Runner
from torch import nn

from mmuniformer.engine.runner import CheckedRunner
from mmuniformer.errors import CheckpointError, UserError


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(torch.stack(inputs)).square().mean()}


class Numbers(list):
    """So many samples as its annotation file says."""

    def __init__(self, ann_file, **kwargs):
        super().__init__([{'inputs': torch.ones(1)}] * int(Path(ann_file).read_text()))


@pytest.fixture
def make(tmp_path):
    """Make a runner of two samples, trained for a number of epochs."""
    DATASETS.register_module(name='CheckedNumbers', module=Numbers, force=True)
    file = tmp_path / 'numbers.txt'
    file.write_text('2')
    made = []

    def runner(epochs=1, accumulate=1, **options):
        loader = {
            'batch_size': 1,
            'num_workers': 0,
            'dataset': {'type': 'CheckedNumbers', 'ann_file': str(file)},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        }
        made.append(
            CheckedRunner(
                Linear(),
                str(tmp_path / 'work'),
                train_dataloader=loader,
                train_cfg={'by_epoch': True, 'max_epochs': epochs},
                optim_wrapper={
                    'optimizer': {'type': 'SGD', 'lr': 0.1},
                    'accumulative_counts': accumulate,
                },
                experiment_name=f'{tmp_path.name}_{len(made)}',
                log_level='ERROR',
                default_scope='mmengine',
                **options,
            )
        )
        return made[-1]

    return runner


def test_work_dir_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/below: Not a directory. Name another folder'):
        CheckedRunner(Linear(), str(tmp_path / 'file' / 'below'))

    def refuse(**where):
        raise PermissionError(13, 'Permission denied', where['dir'])

    monkeypatch.setattr('tempfile.TemporaryFile', refuse)
    with pytest.raises(UserError, match='mine: Permission denied. Name another folder'):
        CheckedRunner(Linear(), str(tmp_path / 'mine'))


def test_registry_knows_it():
    assert RUNNERS.get('mmuniformer.CheckedRunner') is CheckedRunner


@pytest.mark.parametrize('resume', [False, True])
def test_missing_checkpoint_is_named_before_anything_is_built(make, resume):
    runner = make(load_from='gone.pth', resume=resume)
    with pytest.raises(CheckpointError, match=r'gone\.pth does not exist: correct the path'):
        runner.train()
    assert isinstance(runner._train_dataloader, dict)


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision works on a GPU')
@pytest.mark.parametrize(
    'settings',
    [
        {},
        {'dtype': 'bfloat16', 'loss_scale': 'dynamic'},
        {'type': 'mmengine.AmpOptimWrapper'},
        {'type': AmpOptimWrapper},
    ],
)
def test_mixed_precision_without_a_gpu_is_refused(make, settings):
    runner = make()
    runner.optim_wrapper = {**runner.optim_wrapper, 'type': 'AmpOptimWrapper', **settings}
    with pytest.raises(UserError, match='needs a GPU.*train with optim_wrapper.type=OptimWrapper,'):
        runner.train()
    assert isinstance(runner._train_dataloader, dict)


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize('kind', ['truncated', 'web page', 'empty'])
def test_file_that_is_no_checkpoint_is_named(make, tmp_path, kind, resume):
    torch.save({'state_dict': Linear().state_dict()}, tmp_path / 'whole.pth')
    content = {
        'truncated': (tmp_path / 'whole.pth').read_bytes()[:700],
        'web page': b'<!DOCTYPE html><title>Virus scan warning</title>',
        'empty': b'',
    }[kind]
    (tmp_path / 'broken.pth').write_bytes(content)
    said = 'a web page' if kind == 'web page' else 'truncated or no PyTorch checkpoint'
    with pytest.raises(CheckpointError, match=rf'broken\.pth is {said}'):
        make(load_from=str(tmp_path / 'broken.pth'), resume=resume).train()


def test_last_checkpoint_that_was_cut_off_is_named(make, tmp_path):
    make().train()
    last = tmp_path / 'work' / 'epoch_1.pth'
    last.write_bytes(last.read_bytes()[:-900])
    with pytest.raises(CheckpointError, match=r'epoch_1\.pth is truncated'):
        make(epochs=2, resume=True).train()


def test_weights_alone_cannot_be_resumed_from(make, tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': Linear().state_dict(), 'meta': {'epoch': 1, 'iter': 2}}, path)
    with pytest.raises(CheckpointError, match=r'weights\.pth .* load_from, without resume'):
        make(load_from=str(path), resume=True).train()
    runner = make(load_from=str(path))
    runner.train()
    assert runner.epoch == 1


def test_sound_checkpoint_resumes(make):
    make().train()
    runner = make(epochs=3, resume=True)
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 6)


@pytest.mark.parametrize('place', ['{}/sound.pth', 'open-mmlab://sound'])
def test_other_errors_of_loading_stay(make, tmp_path, monkeypatch, place):
    torch.save({'state_dict': Linear().state_dict()}, tmp_path / 'sound.pth')

    def fail(*args, **kwargs):
        raise KeyError('a bug')

    monkeypatch.setattr(Runner, 'load_checkpoint', fail)
    with pytest.raises(KeyError, match='a bug'):
        make(load_from=place.format(tmp_path)).train()


def test_dataset_without_a_sample_is_refused(make, tmp_path):
    (tmp_path / 'numbers.txt').write_text('0')
    with pytest.raises(UserError, match=r'Numbers .* holds no sample: .*filter_cfg'):
        make().train()


@pytest.fixture
def unbuilt():
    """A runner with nothing to run."""
    runner = object.__new__(CheckedRunner)
    runner.cfg, runner._load_from, runner.model, runner.optim_wrapper = {}, None, None, None
    runner._resume, runner._hooks, runner._train_loop, runner._val_loop = False, [], None, None
    for split in ('train', 'val', 'test'):
        setattr(runner, f'_{split}_dataloader', None)
    return runner


@pytest.mark.parametrize('step', ['train', 'val', 'test'])
def test_data_are_checked_before_they_are_built(step, monkeypatch, unbuilt):
    built = []
    monkeypatch.setattr(Runner, step, lambda self: built.append(step))

    def refuse(cfg):
        raise UserError(f'{cfg["ann_file"]} is empty')

    monkeypatch.setattr('mmuniformer.engine.runner.checked_on_load', refuse)
    setattr(unbuilt, f'_{step}_dataloader', dict(dataset=dict(ann_file='a.json')))
    with pytest.raises(UserError, match=r'a\.json is empty'):
        getattr(unbuilt, step)()
    assert not built
    unbuilt.cfg = {'check_data': False}
    getattr(unbuilt, step)()
    assert built == [step]


@pytest.mark.parametrize('form', ['metric', 'list', 'evaluator'])
def test_missing_file_to_score_by_is_named(tmp_path, monkeypatch, form, unbuilt):
    monkeypatch.setattr(Runner, 'test', lambda self: {})
    metric = dict(type='CocoMetric', ann_file=str(tmp_path / 'gone.json'))
    metrics = [dict(type='Other'), metric]
    unbuilt._test_evaluator = {
        'metric': metric,
        'list': metrics,
        'evaluator': dict(type='Evaluator', metrics=metrics),
    }[form]
    with pytest.raises(UserError, match=r'gone\.json, by which .* set test_evaluator\.ann_file'):
        unbuilt.test()
    metric['backend_args'] = dict(backend='petrel')  # on remote storage
    assert unbuilt.test() == {}


@pytest.mark.parametrize(
    ('batches', 'settings', 'factor'),
    [
        (1, {'base_batch_size': 4}, 1 / 4),
        (4, {'base_batch_size': 4}, 1),  # one image at a time, four a step
        (4, {'base_batch_size': 16}, 1 / 4),
        (4, {'base_batch_size': 1, 'accumulative_counts': 4}, 1),
        (8, {'base_batch_size': 1, 'accumulative_counts': 4}, 2),
        (4, {'base_batch_size': 4, 'enable': False}, 1),
    ],
)
def test_scaled_rate_counts_accumulated_batches(make, batches, settings, factor):
    runner = make(accumulate=batches, auto_scale_lr={'enable': True, **settings})
    runner.train()
    assert runner.optim_wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(0.1 * factor)
