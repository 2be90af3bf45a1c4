"""A training run of mmengine that takes a second; as a script it writes its checkpoint.

``python tests/small_run.py tests/golden/training-STACK.pickle``, run on each stack, made these.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

import mmuniformer  # noqa: F401
from mmuniformer.engine.hooks import RandomStateHook


class Model(BaseModel):
    """Two weights that follow random numbers."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, inputs, mode='tensor'):
        target = torch.rand(2) + float(torch.randn(1))
        return {'loss': (self.layer(torch.stack(list(inputs))) - target).square().mean()}


class Save(Hook):
    """Save as CheckpointHook does, which would write the path of the folder into the file."""

    priority = 'VERY_LOW'  # after the scheduler's step

    def after_train_epoch(self, runner):
        runner.save_checkpoint(runner.work_dir, f'epoch_{runner.epoch + 1}.pth')


def build(work_dir, epochs=1, **options):
    """Build a runner; ``options`` like ``load_from`` and ``resume``."""
    torch.manual_seed(0)
    data = [{'inputs': torch.tensor([i / 4, 1 - i / 4])} for i in range(4)]
    return Runner(
        options.pop('model', None) or Model(),
        str(work_dir),
        train_dataloader=dict(
            dataset=data, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=dict(type='PolyLR', end=4),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
        custom_hooks=[RandomStateHook(), Save()],
        randomness=dict(seed=0),
        log_level='ERROR',
        experiment_name=str(work_dir),
        **options,
    )


if __name__ == '__main__':
    target = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # the file names its work_dir
        build('run').train()
        shutil.copyfile('run/epoch_1.pth', target)
