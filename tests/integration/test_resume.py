"""A resumed training run goes on exactly: same losses and weights as an uninterrupted one."""

from __future__ import annotations

import contextlib
import signal

import pytest
import torch
from config_helpers import SEG_TOYS, load
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS

from mmuniformer.compat import load_file
from mmuniformer.datasets.toy import labeled
from mmuniformer.datasets.toy.write import write_toy_data

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Framework, folder of the data, and what the length of a run is counted in.
CONFIGS = {
    'mask-rcnn_uniformer-nano_fpn_toy': ('mmdet', 'coco', 'epoch'),
    SEG_TOYS[0]: ('mmseg', 'ade', 'iter'),
    'td-hm_uniformer-nano_toy-128x96': ('mmpose', 'coco', 'epoch'),
}
LENGTH, STOP = 3, 2
CLASSIFIERS = {
    'uniformer-nano_toy-64x64': ('mmpretrain', 'cls', 0),
    'uniformer3d-nano_toy-u4-64x64': ('mmaction', 'video', 2),
}
"""Framework, folder of the data, worker processes."""


class Interrupted(Exception):
    pass


class Recorder(Hook):
    """Keeps losses and worker processes; breaks off at the start of epoch or iteration ``stop``."""

    def __init__(self, unit, stop):
        self.losses, self.workers, self.unit, self.stop = [], set(), unit, stop

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if getattr(runner, self.unit) == self.stop:
            raise Interrupted

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        batches = runner.train_dataloader._iterator
        self.workers.update(worker.pid for worker in getattr(batches, '_workers', ()))


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('name', CONFIGS)
def test_resumed_training_is_the_uninterrupted_one(toy_root, tmp_path, name, workers):
    """With what is random in it: shuffling, augmentation, drop path; and validation in between."""
    framework, folder, unit = CONFIGS[name]
    pytest.importorskip(framework)

    def train(part, resume=False, stop=None):
        config = load(name)
        config.work_dir = str(tmp_path / ('whole' if part == 'whole' else 'parts'))
        config.experiment_name = config.visualizer.name = f'{tmp_path}/{part}'
        for split in ('train', 'val'):
            config[f'{split}_dataloader'].dataset.data_root = f'{toy_root}/{folder}/'
        if 'ann_file' in config.val_evaluator:
            file = config.val_dataloader.dataset.ann_file
            config.val_evaluator.ann_file = f'{toy_root}/{folder}/{file}'
        config.merge_from_dict(
            {
                'model.backbone.drop_path_rate': 0.5,
                'train_dataloader.batch_size': 4,
                'train_dataloader.num_workers': workers,
                'train_dataloader.persistent_workers': workers > 0,
                f'train_cfg.max_{unit}s': LENGTH,
                'train_cfg.val_interval': 1,
                'default_hooks.checkpoint.interval': 1,
                'default_hooks.ema': {'type': 'EMAHook'},
                'log_level': 'WARNING',
                'resume': resume,
            }
        )
        runner = RUNNERS.build(config)
        recorder = Recorder(unit, stop)
        runner.register_hook(recorder)
        with contextlib.suppress(Interrupted):
            runner.train()
        assert getattr(runner, unit) == (stop or LENGTH)
        assert len(recorder.workers) == workers  # the same in every epoch
        # Workers left to the garbage collector would be waited for, five seconds each.
        runner.train_loop.dataloader_iterator = None
        runner.train_dataloader._iterator = None
        return recorder.losses

    whole = train('whole')
    begun = train('begun', stop=STOP)
    torch.manual_seed(1)
    resumed = train('resumed', resume=True)

    assert len(resumed) * LENGTH == len(whole) * (LENGTH - STOP) > 0
    assert begun + resumed == whole
    first, second = (
        load_file(tmp_path / part / f'{unit}_{LENGTH}.pth') for part in ('whole', 'parts')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), (part, key)
    assert first['param_schedulers'] == second['param_schedulers']
    assert torch.equal(first['random_state']['torch'], second['random_state']['torch'])


class Terminates(Hook):
    """Sends this process SIGTERM in an iteration, of those that run here."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_go_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch, name):
    framework, folder, workers = CLASSIFIERS[name]
    pytest.importorskip(framework)
    monkeypatch.setattr(labeled, 'CLIPS_PER_MOTION', {'train': 2, 'val': 1})
    data = write_toy_data(tmp_path / 'toy', seed=0, train_images=8, val_images=4, size=64)
    labeled.write_toy_crops(data)
    labeled.write_toy_clips(data)

    def train(part, resume=False, stop=None):
        config = load(name)
        config.work_dir = str(tmp_path / ('whole' if part == 'whole' else 'parts'))
        config.experiment_name = config.visualizer.name = f'{tmp_path}/{part}'
        config.merge_from_dict(
            {
                **{
                    f'{split}_dataloader.dataset.{key}': value
                    for split in ('train', 'val')
                    for key, value in (('data_root', f'{data.out}/{folder}/'), ('indices', 12))
                },
                'model.backbone.drop_path_rate': 0.5,
                'train_dataloader.batch_size': 4,
                'train_dataloader.num_workers': workers,
                'train_dataloader.persistent_workers': workers > 0,
                'train_cfg.max_epochs': 2,
                'train_cfg.val_interval': 2,
                'default_hooks.checkpoint.interval': 2,
                'log_level': 'WARNING',
                'resume': resume,
            }
        )
        runner = RUNNERS.build(config)
        recorder = Recorder('iter', None)
        runner.register_hook(recorder)
        runner.register_hook(Terminates(stop))
        if stop is None:
            runner.train()
        else:
            with pytest.raises(SystemExit, match='143'):
                runner.train()
        runner.train_loop.dataloader_iterator = None
        runner.train_dataloader._iterator = None
        return recorder.losses

    whole = train('whole')
    begun = train('begun', stop=1)
    torch.manual_seed(1)
    assert (len(whole), len(begun)) == (6, 2)
    assert begun + train('resumed', resume=True) == whole
    first, second = (
        load_file(tmp_path / part / 'epoch_2.pth')['state_dict'] for part in ('whole', 'parts')
    )
    assert first.keys() == second.keys()
    assert [key for key, value in first.items() if not torch.equal(value, second[key])] == []
