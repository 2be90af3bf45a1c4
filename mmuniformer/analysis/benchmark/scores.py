"""Scores of a model on the config's test data."""

from __future__ import annotations

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from torch import nn

from mmuniformer.apis.config import scope_of
from mmuniformer.datasets.checks.dataset import check_dataset
from mmuniformer.datasets.checks.label_maps import check_batch, check_files
from mmuniformer.errors import UserError


def check_data(cfg: Config) -> None:
    """Refuse test data that cannot be scored, before anything is measured."""
    if not cfg.get('check_data', True):
        return
    with scope_of(cfg):
        try:
            check_dataset(cfg.test_dataloader.dataset)
            check_files(DATASETS.build(cfg.test_dataloader.dataset))
        except UserError as error:
            reason = str(error).rstrip('.')
            raise UserError(f'{reason}; or measure without scores: --no-data') from error


def evaluate(
    model: nn.Module, cfg: Config, console: Console | None = None, name: str = 'scores'
) -> dict[str, float]:
    """Score a model on the config's test data; metrics by the names that its framework gives.

    Raises:
        DataError: A label map holds labels that are no class of the segmentor.
    """
    head = getattr(model, 'decode_head', None) if cfg.get('check_data', True) else None
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.inference_mode():
        for batch in track(loader, name, console=console, disable=console is None):
            if head is not None:
                check_batch(head, batch)
            evaluator.process(model.test_step(batch), batch)
    found = evaluator.evaluate(len(loader.dataset))
    return {metric: float(value) for metric, value in found.items()}
