"""Hooks for trainings in other processes, which configs of tests name in custom_imports."""

import json
import os
import signal
from pathlib import Path

import torch
from mmengine.dist import all_reduce, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class WriteLosses(Hook):
    """Write the loss of each iteration, averaged over the processes, and the metrics."""

    def __init__(self, file):
        self.file, self.losses, self.metrics = Path(file), [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().double().clone()
        all_reduce(loss, 'mean')
        self.losses.append(loss.item())

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = {key: float(value) for key, value in metrics.items()}

    def after_train(self, runner):
        if is_main_process():
            self.file.write_text(json.dumps({'losses': self.losses, 'metrics': self.metrics}))

    def after_test_epoch(self, runner, metrics=None):
        if is_main_process():
            self.file.write_text(json.dumps({key: float(each) for key, each in metrics.items()}))


@HOOKS.register_module()
class Kill(Hook):
    """Send a process of a run a signal in an iteration."""

    def __init__(self, iteration, rank=1, number=signal.SIGKILL):
        self.iteration, self.rank, self.number = iteration, rank, number

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration and get_rank() == self.rank:
            Path(runner.work_dir, 'killed').touch()
            os.kill(os.getpid(), self.number)


@HOOKS.register_module()
class UseTwoStages(Hook):
    """Leave two outputs of the backbone without a gradient, as a head does that takes two."""

    def before_train(self, runner):
        backbone = getattr(runner.model, 'module', runner.model).backbone
        forward = backbone.forward

        def cut(x):
            return tuple(
                torch.zeros_like(each) if i < 2 else each for i, each in enumerate(forward(x))
            )

        backbone.forward = cut
