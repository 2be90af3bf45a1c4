"""``mmuniformer benchmark seg``: a segmentor's layouts of stage 3 side by side."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table
from torch import nn

from mmuniformer import measure
from mmuniformer.complexity import complexity, published_shape
from mmuniformer.datasets.checks import check_batch, check_files, check_image_folder
from mmuniformer.errors import UserError
from mmuniformer.layouts import GLOBAL_LAYOUTS, Layout, layouts_of
from mmuniformer.loading import ConfigCommand, build_model, cfg_options, load_config, scope_of

METRICS = ('mIoU', 'mAcc', 'aAcc')


@dataclasses.dataclass
class Row:
    """What was measured in one layout."""

    layout: str
    metrics: dict[str, float]
    """In percent; empty where nothing was evaluated."""
    latency: measure.Timing
    images_per_second: float
    peak_memory: int
    """Bytes: of the GPU's allocator, or the resident set of a fresh process."""
    flops: int
    """Multiply-adds of one image, by the published counting."""
    params: int

    def cells(self) -> dict[str, float | str | None]:
        """Return the figures with their units in their names."""
        return {
            'layout': self.layout,
            **{name: self.metrics.get(name) for name in METRICS},
            'latency (ms)': round(self.latency.median * 1e3, 2),
            'fastest (ms)': round(self.latency.fastest * 1e3, 2),
            'slowest (ms)': round(self.latency.slowest * 1e3, 2),
            'images/s': round(self.images_per_second, 3),
            'peak memory (MB)': round(self.peak_memory / measure.MEGABYTE, 1),
            'FLOPs (G)': round(self.flops / 1e9, 3),
            'params (M)': round(self.params / 1e6, 3),
        }


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a benchmark is run; recorded beside its figures."""

    config: str
    checkpoint: str | None
    shape: tuple[int, int]
    """Image height and width for time, memory and FLOPs."""
    batch_size: int
    repeats: int
    device: str


def prepare_prediction(
    cfg: Config, checkpoint: str | None, layout: Layout, shape: Sequence[int], batch_size: int,
    device: str,
):  # fmt: skip
    """Build a segmentor and return the call that turns a batch of normalized images into labels."""
    with quiet():
        model = build_model(cfg, checkpoint, device)
    layout.apply(model)
    return prediction(model, torch.rand(batch_size, 3, *shape, device=device))


def prediction(model: nn.Module, images: torch.Tensor):
    """Return the call that predicts: network, resizing to the images' size, choice of the class."""

    def call():
        with torch.inference_mode():
            return model(images, mode='predict')

    return call


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


def evaluate(model: nn.Module, cfg: Config, on_batch=lambda: None) -> dict[str, float]:
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep mmsegmentation's own tables and its warnings about itself off the screen."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', module='mmseg')
        try:
            yield
        finally:
            logger.setLevel(level)


def benchmark_seg(
    cfg: Config,
    layouts: Sequence[Layout],
    settings: Settings,
    with_data: bool,
    console: Console,
) -> list[Row]:
    """Measure a segmentor in each layout, all with the same weights.

    Raises:
        UserError: Data are missing or do not fit; see ``check_data``.
    """
    device = torch.device(settings.device)
    shape, batch_size = settings.shape, settings.batch_size
    with quiet(), scope_of(cfg):
        batches = 0
        if with_data:
            batches = -(-len(check_data(cfg)) // cfg.test_dataloader.batch_size)
        model = build_model(cfg, settings.checkpoint, device)
        images = torch.rand(batch_size, 3, *shape, device=device)
        predict = prediction(model, images)

        def predict_in(layout: Layout):
            layout.apply(model)
            return predict()

        scores, memory, costs = {}, {}, {}
        columns = (
            *Progress.get_default_columns()[:-1],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:

            def track(name: str, total: int):
                task = progress.add_task(name, total=total)
                return lambda: progress.advance(task)

            for layout in layouts if with_data else ():
                layout.apply(model)
                scores[layout] = evaluate(model, cfg, track(f'scores, {layout.name}', batches))
            timings = measure.interleaved(
                {layout: lambda layout=layout: predict_in(layout) for layout in layouts},
                settings.repeats,
                device,
                track('time', (settings.repeats + 1) * len(layouts)),
            )
            done = track('memory and FLOPs', len(layouts))
            for layout in layouts:
                if device.type == 'cuda':
                    memory[layout] = measure.peak_memory_on_gpu(
                        lambda layout=layout: predict_in(layout), device
                    )
                else:
                    memory[layout] = measure.peak_memory_on_cpu(
                        prepare_prediction, cfg, settings.checkpoint, layout, shape, batch_size,
                        settings.device,
                    )  # fmt: skip
                costs[layout] = complexity(layout.in_config(cfg), shape)
                done()
    return [
        Row(
            layout.name,
            scores.get(layout, {}),
            timings[layout],
            batch_size / timings[layout].median,
            memory[layout],
            costs[layout].flops,
            costs[layout].params,
        )
        for layout in layouts
    ]


def render(rows: Sequence[Row], settings: Settings) -> Table:
    """Lay the rows out for the terminal."""
    height, width = settings.shape
    machine = measure.machine(torch.device(settings.device))
    table = Table(
        title=f'{settings.config}: {rows[0].params / 1e6:.2f}M parameters',
        caption=f'{settings.batch_size} x {height} x {width} (H x W), median of '
        f'{settings.repeats}, torch {machine["versions"]["torch"]} on {machine["device"]}, '
        f'{machine["threads"]} threads. FLOPs: multiply-adds of one image.',
        caption_justify='left',
    )
    table.add_column('layout')
    for name in (*METRICS, 'ms', 'spread', 'img/s', 'peak MB', 'GFLOPs'):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(
            row.layout,
            *(f'{row.metrics[name]:.2f}' if name in row.metrics else '-' for name in METRICS),
            f'{row.latency.median * 1e3:.1f}',
            f'{row.latency.spread:.0%}',
            f'{row.images_per_second:.2f}',
            f'{row.peak_memory / measure.MEGABYTE:.0f}',
            f'{row.flops / 1e9:.4g}',
        )
    return table


def write(rows: Sequence[Row], settings: Settings, files: tuple[Path, Path]) -> None:
    """Write the figures as JSON, with what they were measured on, and as CSV."""
    cells = [row.cells() for row in rows]
    record = {
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': dataclasses.asdict(settings),
        'machine': measure.machine(torch.device(settings.device)),
        'layouts': cells,
    }
    as_json, as_csv = files
    as_json.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    with as_csv.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, cells[0])
        writer.writeheader()
        writer.writerows(cells)


def output_files(out: Path, force: bool) -> tuple[Path, Path]:
    """Return the JSON and the CSV file to write, before anything is measured.

    Raises:
        UserError: One of them is there and ``force`` is not given, or the folder can't be made.
    """
    files = (out / 'benchmark.json', out / 'benchmark.csv')
    for file in files:
        if file.exists() and not force:
            raise UserError(f'{file} is there already: name another folder with --out, or --force')
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}; name another folder') from error
    return files


@click.command('seg', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@click.option('--layouts', help=f'Of stage 3, like {GLOBAL_LAYOUTS} (default if trained global).')
@click.option(
    '--stage3-attn', type=click.Choice(['global', 'window', 'hybrid', 'auto']), help='One layout.'
)
@click.option('--window-size', type=click.IntRange(1), help='In tokens, with --stage3-attn.')
@click.option(
    '--shape', type=click.IntRange(32), nargs=2, help='Image height and width.  [default: 512 2048]'
)
@click.option('--batch-size', type=click.IntRange(1), default=1, show_default=True)
@click.option('--data/--no-data', default=None, help='Score the test data, or not.')
@click.option('--repeats', type=click.IntRange(1), default=5, show_default=True)
@click.option('--device', help='Like cpu or cuda:0.  [default: cuda if there is one]')
@click.option(
    '--out', type=click.Path(path_type=Path), help='Folder.  [default: work_dirs/CONFIG/benchmark]'
)
@click.option('--force', is_flag=True, help='Replace the figures of an earlier run.')
@cfg_options
def seg(
    config: str, checkpoint: str | None, layouts: str | None, stage3_attn: str | None,
    window_size: int | None, shape: tuple[int, int] | None, batch_size: int, data: bool | None,
    repeats: int, device: str | None, out: Path | None, force: bool, cfg_options: dict[str, Any],
) -> None:  # fmt: skip
    """Measure a segmentor in several layouts of stage 3, all with the weights of one checkpoint.

    Scores on the test data are taken where a checkpoint is given; --no-data leaves them out. Time
    and memory are those of a whole prediction: from the normalized image to its label map.
    """
    if stage3_attn and layouts:
        raise UserError('give --layouts or --stage3-attn, not both')
    if window_size and not stage3_attn:
        raise UserError('--window-size goes with --stage3-attn; in --layouts write w32 or h32')
    if data and not checkpoint:
        raise UserError('--data: scores need the weights; give the CHECKPOINT')
    cfg = load_config(config, cfg_options)
    if cfg.get('default_scope') != 'mmseg':
        raise UserError(f'{config} is no config of a segmentor (default_scope is not mmseg)')
    if stage3_attn:
        window = window_size or cfg.model.backbone.get('window_size', 14)
        layouts = Layout.of(stage3_attn, window).name
    chosen = layouts_of(cfg, layouts)
    settings = Settings(
        Path(cfg.filename).stem,
        checkpoint,
        tuple(shape or published_shape(cfg)),
        batch_size,
        repeats,
        device or ('cuda' if torch.cuda.is_available() else 'cpu'),
    )
    files = output_files(out or Path('work_dirs') / settings.config / 'benchmark', force)
    console = Console()
    with_data = bool(checkpoint) if data is None else data
    rows = benchmark_seg(cfg, chosen, settings, with_data, console)
    write(rows, settings, files)
    console.print(render(rows, settings))
    console.print(f'written to {files[0]} and {files[1]}', soft_wrap=True)
