"""A resumed training run goes on exactly: same losses and weights as an uninterrupted one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS

pytest.importorskip('mmpose')
pytestmark = [pytest.mark.integration, pytest.mark.slow]

TOY = Path(__file__).resolve().parents[2] / 'configs/pose/toy/td-hm_uniformer-nano_toy-128x96.py'
EPOCHS, EPOCHS_BEFORE = 3, 2


class Interrupted(Exception):
    pass


class Recorder(Hook):
    """Keeps every iteration's loss, and breaks off at the start of the epoch ``stop``."""

    def __init__(self, stop):
        self.losses, self.stop = [], stop

    def before_train_epoch(self, runner):
        if runner.epoch == self.stop:
            raise Interrupted

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


@pytest.mark.parametrize('workers', [0, 2])
def test_resumed_training_is_the_uninterrupted_one(toy_root, tmp_path, workers):
    """With what is random in it: shuffling, augmentation, drop path; and validation in between."""

    def train(name, resume=False, stop=None):
        config = Config.fromfile(TOY)
        config.work_dir = str(tmp_path / ('whole' if name == 'whole' else 'parts'))
        config.experiment_name = config.visualizer.name = f'{tmp_path}/{name}'
        for split in ('train', 'val'):
            config[f'{split}_dataloader'].dataset.data_root = f'{toy_root}/coco/'
        config.val_evaluator.ann_file = f'{toy_root}/coco/annotations/person_keypoints_val2017.json'
        config.merge_from_dict(
            {
                'model.backbone.drop_path_rate': 0.5,
                'train_dataloader.batch_size': 4,
                'train_dataloader.num_workers': workers,
                'train_dataloader.persistent_workers': workers > 0,
                'train_cfg.max_epochs': EPOCHS,
                'train_cfg.val_interval': 1,
                'default_hooks.checkpoint.interval': 1,
                'default_hooks.ema': {'type': 'EMAHook'},
                'log_level': 'WARNING',
                'resume': resume,
            }
        )
        runner = RUNNERS.build(config)
        recorder = Recorder(stop)
        runner.register_hook(recorder)
        with contextlib.suppress(Interrupted):
            runner.train()
        assert runner.epoch == (stop or EPOCHS)
        # Workers left to the garbage collector would be waited for, five seconds each.
        runner.train_dataloader._iterator = None
        return recorder.losses

    whole = train('whole')
    begun = train('begun', stop=EPOCHS_BEFORE)
    torch.manual_seed(1)
    resumed = train('resumed', resume=True)

    assert len(resumed) * EPOCHS == len(whole) * (EPOCHS - EPOCHS_BEFORE) > 0
    assert begun + resumed == whole
    first, second = (
        torch.load(tmp_path / folder / f'epoch_{EPOCHS}.pth', weights_only=True)
        for folder in ('whole', 'parts')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), (part, key)
    assert first['param_schedulers'] == second['param_schedulers']
    assert torch.equal(first['random_state']['torch'], second['random_state']['torch'])
