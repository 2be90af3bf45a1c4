"""``mmuniformer benchmark seg``: a segmentor's layouts of stage 3 side by side, with scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from torch import nn

from mmuniformer.analysis.benchmark.cases import Case
from mmuniformer.analysis.benchmark.command import config_of, options, own_layouts, run_benchmark
from mmuniformer.analysis.benchmark.run import Scorer, Tracker, no_scores
from mmuniformer.analysis.layouts import Layout, layouts_of
from mmuniformer.apis.config import scope_of
from mmuniformer.cli.options import ConfigCommand
from mmuniformer.datasets.checks.label_maps import check_batch, check_files, check_image_folder
from mmuniformer.errors import UserError

METRICS = ('mIoU', 'mAcc', 'aAcc')


def check_data(cfg: Config) -> Any:
    """Build the test data set.

    Raises:
        UserError: It is missing, empty or no label maps; names the path.
    """
    from mmseg.registry import DATASETS

    try:
        check_image_folder(cfg.test_dataloader.dataset)
    except UserError as error:
        raise UserError(f'{error}; or measure without scores: --no-data') from error
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    check_files(dataset)
    return dataset


def evaluate(
    model: nn.Module, cfg: Config, on_batch: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Score a segmentor on the config's test data; percentages by name."""
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.inference_mode():
        for batch in loader:
            check_batch(model, batch)
            evaluator.process(model.test_step(batch), batch)
            on_batch()
    metrics = evaluator.evaluate(len(loader.dataset))
    return {name: float(metrics[name]) for name in METRICS}


def scorer(cfg: Config) -> Scorer:
    """Return what scores a case's model on the config's test data.

    Raises:
        UserError: Data are missing or do not fit; see ``check_data``.
    """
    with scope_of(cfg):
        batches = -(-len(check_data(cfg)) // cfg.test_dataloader.batch_size)

    def score(case: Case, model: nn.Module, track: Tracker) -> dict[str, float]:
        done = track(f'scores, {case.layout} {case.name}', batches)
        return evaluate(model, cfg, done)

    return score


@click.command('seg', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@click.option(
    '--stage3-attn', type=click.Choice(['global', 'window', 'hybrid', 'auto']), help='One layout.'
)
@click.option('--window-size', type=click.IntRange(1), help='In tokens, with --stage3-attn.')
@click.option('--data/--no-data', default=None, help='Score the test data, or not.')
@options
def seg(
    config: str, checkpoint: str | None, layouts: str | None, stage3_attn: str | None,
    window_size: int | None, data: bool | None, cfg_options: dict[str, Any], **settings: Any,
) -> None:  # fmt: skip
    """Measure a segmentor in several layouts of stage 3, all with the weights of one checkpoint.

    Scores on the test data are taken where a checkpoint is given; --no-data leaves them out. Time
    and memory are those of a whole prediction: from the normalized image to its label map. Of the
    profiles only fused is measured unless --profiles names others.
    """
    if stage3_attn and layouts:
        raise UserError('give --layouts or --stage3-attn, not both')
    if window_size and not stage3_attn:
        raise UserError('--window-size goes with --stage3-attn; in --layouts write w32 or h32')
    if data and not checkpoint:
        raise UserError('--data: scores need the weights; give the CHECKPOINT')
    cfg = config_of('seg', config, cfg_options)
    if stage3_attn:
        window = window_size or cfg.model.backbone.get('window_size', 14)
        layouts = Layout.of(stage3_attn, window).name
    training = settings['train']
    if training and data:
        raise UserError('--data goes with inference: leave --train out')
    # The layouts to choose from for a test; training has one.
    chosen = own_layouts(cfg, layouts) if training else layouts_of(cfg, layouts)
    if not training and settings['profiles'] is None:
        settings['profiles'] = 'fused'
    scores = bool(checkpoint) and not training if data is None else data
    run_benchmark(
        'seg', Path(config).stem, cfg, checkpoint, chosen,
        scorer(cfg) if scores else no_scores, **settings,
    )  # fmt: skip
