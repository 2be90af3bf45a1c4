"""Scoring exported files on a config's test data, by the config's own evaluator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from rich.table import Table
from torch import Tensor, nn

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.cases import quiet as quiet_frameworks
from mmuniformer.apis.config import scope_of
from mmuniformer.datasets.checks.annotations import check_dataset
from mmuniformer.deployment.files import quiet, runner
from mmuniformer.deployment.networks import Outputs, Target
from mmuniformer.errors import UserError

REPEATS = 5


def check_data(cfg: Config) -> None:
    """Refuse a config that can not be scored.

    Raises:
        UserError: It has no test data or evaluator, or the data are missing.
    """
    for name in ('test_dataloader', 'test_evaluator'):
        if name not in cfg:
            raise UserError(f'--score: the config has no {name}')
    with quiet(), scope_of(cfg):
        check_dataset(cfg.test_dataloader.dataset)


def fed_by(cfg: Config, model: nn.Module, run: Callable[[Tensor], Outputs]) -> nn.Module:
    """Return a copy of a model whose network is an exported file.

    What the framework does before and after the network stays: normalization, flip tests, resizing
    of logits, decoding of heat maps.
    """
    model = copy.deepcopy(model)
    # Attributes of the copy come before the methods of its class.
    if cfg.default_scope == 'mmseg':
        model.encode_decode = lambda image, metas: run(image)[0]
    else:
        model.extract_feat = lambda image: image
        model.head.forward = lambda image: run(image)[0]
    return model


def score(cfg: Config, model: nn.Module) -> dict[str, float]:
    """Score a model on the config's test data; the evaluator's metrics by name."""
    cfg = copy.deepcopy(cfg)
    with quiet_frameworks(), quiet(), scope_of(cfg), torch.inference_mode():
        loader = Runner.build_dataloader(cfg.test_dataloader)
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        for batch in loader:
            evaluator.process(model.test_step(batch), batch)
        return {
            name: float(value) for name, value in evaluator.evaluate(len(loader.dataset)).items()
        }


def compare(
    cfg: Config, model: nn.Module, target: Target, files: Sequence[Path], shape: Sequence[int]
) -> Table:
    """Score and time a model in PyTorch and from each file; lay it out for the terminal.

    Times are of the network alone, as the file has it, on one input of ``shape`` (batch, height,
    width).
    """
    runs = {file.name: runner(file) for file in files}
    models = {'PyTorch': model, **{name: fed_by(cfg, model, run) for name, run in runs.items()}}
    scores = {name: score(cfg, each) for name, each in models.items()}
    image = torch.rand(shape[0], target.channels, *shape[1:])
    with torch.inference_mode():
        times = measure.interleaved(
            {
                name: lambda run=run: run(image)
                for name, run in {'PyTorch': target.expected, **runs}.items()
            },
            REPEATS,
            image.device,
        )
    machine = measure.machine(image.device)
    table = Table(
        title="on the config's test data",
        caption=f'time of {" x ".join(map(str, shape))}, {machine["device"]}, '
        f'{machine["threads"]} threads',
    )
    table.add_column('')
    for name in models:
        table.add_column(name, justify='right', overflow='fold')
    for metric in scores['PyTorch']:
        table.add_row(metric, *(f'{scores[name][metric]:.4g}' for name in models))
    table.add_row('time (ms)', *(f'{times[name].median * 1e3:.1f}' for name in models))
    return table
