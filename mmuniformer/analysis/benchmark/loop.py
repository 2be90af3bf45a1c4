"""The training loop of a config: the share of loading data, and what it adds to the network."""

from __future__ import annotations

import copy
import itertools
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from rich.console import Console

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.report import Row
from mmuniformer.analysis.benchmark.run import set_pace
from mmuniformer.analysis.layouts import Layout
from mmuniformer.apis.config import clip_views
from mmuniformer.apis.models import quiet
from mmuniformer.errors import UserError

STEPS = 50
"""Timed steps, unless told otherwise."""
WARM_UP = 10
"""Steps before them: more than the batches that processes prepare ahead."""
KEPT = 8
"""Last batches of the loop, on which the network alone is measured."""


class Finished(Exception):
    """The loop has done its steps."""


class StepsHook(Hook):
    """End a training after some steps; keep the last batches."""

    priority = 'LOWEST'

    def __init__(self, steps: int):
        self.left, self.batches = steps, deque(maxlen=KEPT)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep the batch."""
        self.batches.append(data_batch)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """End the training with its last step."""
        self.left -= 1
        if not self.left:
            raise Finished


def loop_config(cfg: Config, work_dir: Path) -> Config:
    """Return a config that trains in a folder without validation and checkpoints."""
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(work_dir)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[key] = None
    cfg.setdefault('default_hooks', {})['checkpoint'] = None
    return cfg


def measure_loop(cfg: Config, steps: int, work_dir: Path, console: Console) -> list[Row]:
    """Train by a config's own runner, then time the network alone on the last batches.

    Returns:
        Rows for the loop, for forward, backward and optimizer, and for forward and backward.

    Raises:
        UserError: The data cannot be used, or the whole training has fewer steps.
    """
    console.print(f'{WARM_UP} and {steps} steps of training, logged in {work_dir}')
    hook = StepsHook(WARM_UP + steps)
    with quiet():
        runner = RUNNERS.build(loop_config(cfg, work_dir))
        runner.register_hook(hook)
        try:
            runner.train()
        except Finished:
            pass
        else:
            raise UserError(
                f'the training of this config has {runner.iter} steps: give --repeats at most '
                f'{runner.iter - WARM_UP}, or let train_cfg train for longer'
            )
        seconds, data = (
            runner.message_hub.get_scalar(f'train/{name}').data[0][-steps:]
            for name in ('time', 'data_time')
        )
        calls, size = network_calls(runner, list(hook.batches), 3 if clip_views(cfg) else 2)
        device = next(runner.model.parameters()).device
        alone = measure.interleaved(calls, steps, device, console)
    params = sum(parameter.numel() for parameter in runner.model.parameters()) / 1e6
    layout, rows = Layout.of(cfg).name, []
    for name, taken in {'training loop': seconds, **alone}.items():
        row = Row(name, layout, size=' x '.join(map(str, size)), params_m=params)
        median = set_pace(row, taken, size[0], size[1:])
        row.times_backward = median / statistics.median(alone['forward, backward'])
        rows.append(row)
    # Batches come in bursts from processes: no median.
    rows[0].data_ms, rows[0].data_share = np.mean(data) * 1e3, np.sum(data) / np.sum(seconds)
    return rows


def network_calls(
    runner: Runner, batches: list[Any], sides: int
) -> tuple[dict[str, Callable[[], None]], tuple[int, ...]]:
    """Return calls of the network alone, each on one batch after another, and an input's size."""
    model, wrapper = runner.model, runner.optim_wrapper
    inputs = [model.data_preprocessor(batch, True) for batch in batches]

    def loss_of(data: Mapping[str, Any]) -> torch.Tensor:
        with wrapper.optim_context(model):
            losses = model(**data, mode='loss')
        return model.parse_losses(losses)[0]

    def backward(data: Mapping[str, Any]) -> None:
        wrapper.backward(loss_of(data))
        wrapper.zero_grad()

    def step(data: Mapping[str, Any]) -> None:
        wrapper.update_params(loss_of(data))

    def each(call: Callable[[Mapping[str, Any]], None]) -> Callable[[], None]:
        turns = itertools.cycle(inputs)
        return lambda: call(next(turns))

    shape = inputs[-1]['inputs'].shape
    calls = {'forward, backward, optimizer': each(step), 'forward, backward': each(backward)}
    return calls, (shape[0], *shape[-sides:])
