"""What the benchmark's sub-commands share: options, and the way from them to a table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config
from rich.console import Console
from rich.measure import Measurement

from mmuniformer.analysis.benchmark.baselines import published_of_ours, rival_cases
from mmuniformer.analysis.benchmark.cases import Case, Settings
from mmuniformer.analysis.benchmark.profiles import (
    INFERENCE,
    PROFILES,
    SWITCHES,
    TRAINING,
    Profile,
    parse_profiles,
)
from mmuniformer.analysis.benchmark.report import make_record, output_files, render, write
from mmuniformer.analysis.benchmark.run import Scorer, measure_cases, no_scores
from mmuniformer.analysis.complexity import layout, published_shape
from mmuniformer.analysis.layouts import Layout, layouts_of
from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.cli.options import cfg_options
from mmuniformer.errors import UserError

SCOPES = {
    'det': ('mmdet', 'detector'),
    'seg': ('mmseg', 'segmentor'),
    'pose': ('mmpose', 'pose estimator'),
}
"""Of a task: the scope of its framework, and what its models are called."""
DEFAULT_PROFILES = {INFERENCE: 'plain,fused,deploy,bf16', TRAINING: 'plain,fused,cp,bf16'}
WIDE = Console(width=1000)
BACKBONE_SHAPE = (512, 512)
LISTED = '; '.join(f'{profile.name}: {profile.about}' for profile in PROFILES.values())
OPTIONS = (
    click.option('--profiles', metavar='NAME,...', help=f'{LISTED}.'),
    click.option('--train', is_flag=True, help='Measure forward and backward of a training step.'),
    click.option(
        '--layouts', '--layout', metavar='NAME,...', help='Of stage 3: global, auto, w32, h14, ...'
    ),
    click.option(
        '--shape',
        'shapes',
        type=click.IntRange(32),
        nargs=2,
        metavar='H W',
        multiple=True,
        help='Image height and width; may be repeated.  [default: that of published FLOPs]',
    ),
    click.option('--batch-size', type=click.IntRange(1), default=1, show_default=True),
    click.option(
        '--repeats',
        type=click.IntRange(0),
        default=5,
        show_default=True,
        help='Timed rounds; from 0, which takes no time.',
    ),
    click.option(
        '--operators',
        is_flag=True,
        help="Also show the time by kind of operator, of one call under PyTorch's profiler.",
    ),
    click.option('--device', help='Like cpu or cuda:0.  [default: cuda if there is one]'),
    click.option(
        '--against', is_flag=True, help='Also Swin-T, ConvNeXt-T and ResNet-50, at equal head.'
    ),
    click.option('--json', 'as_json', is_flag=True, help='Print JSON instead of a table.'),
    click.option(
        '--out',
        type=click.Path(path_type=Path),
        help='Folder for benchmark.json and benchmark.csv.  [default: work_dirs/CONFIG/benchmark]',
    ),
    click.option('--force', is_flag=True, help='Replace the figures of an earlier run.'),
    cfg_options,
)


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options, for ``run_benchmark``."""
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(OPTIONS), function)


def refuse_switches(cfg_options: Mapping[str, Any]) -> None:
    """Refuse settings that a profile stands for, instead of passing over them.

    Raises:
        UserError: Names the key.
    """
    for key in cfg_options:
        if key in {f'model.backbone.{name}' for name in SWITCHES}:
            raise UserError(f'--cfg-options {key}: profiles set it, choose by --profiles')


def config_of(task: str, config: str, cfg_options: Mapping[str, Any]) -> Config:
    """Read the config of a task's model.

    Raises:
        UserError: It is of another task, can't be read, or an option is a profile's.
    """
    refuse_switches(cfg_options)
    cfg = load_config(config, cfg_options)
    scope, kind = SCOPES[task]
    if cfg.get('default_scope') != scope:
        raise UserError(f'{config} is no config of a {kind} (default_scope is not {scope})')
    return cfg


def own_layouts(cfg: Config, names: str | None) -> list[Layout]:
    """Return the layouts asked for; None: the config's own.

    Raises:
        UserError: A name is unknown, or the backbone has no layouts to choose from.
    """
    if names is None and 'Light' not in cfg.model.backbone.type:
        names = layout(cfg)
    return layouts_of(cfg, names)


def make_cases(
    task: str, name: str, cfg: Config, layouts: Sequence[Layout], profiles: Sequence[Profile]
) -> list[Case]:
    """Return a case for each layout and profile of the config with a name."""
    return [
        Case(
            profile.name,
            profile.in_config(layout.in_config(cfg)),
            layout.name,
            profile,
            '' if task == 'backbone' else published_of_ours(name, layout.name),
        )
        for layout in layouts
        for profile in profiles
    ]


def run_benchmark(
    task: str, name: str, cfg: Config, checkpoint: str | None, layouts: Sequence[Layout],
    score: Scorer = no_scores, *, profiles: str | None, train: bool,
    shapes: Sequence[tuple[int, int]], batch_size: int, repeats: int, device: str | None,
    operators: bool, against: bool, as_json: bool, out: Path | None, force: bool,
) -> None:  # fmt: skip
    """Measure a config's model in layouts and profiles; write the figures and show them.

    Raises:
        UserError: An option does not fit the config or the others.
    """
    mode = TRAINING if train else INFERENCE
    chosen = parse_profiles(profiles or DEFAULT_PROFILES[mode], mode)
    if operators and any(profile.compiled for profile in chosen):
        raise UserError('--operators knows no compiled code: leave compile out of --profiles')
    settings = Settings(
        task,
        name,
        checkpoint,
        tuple(shapes) or (published_shape(cfg) or BACKBONE_SHAPE,),
        batch_size,
        repeats,
        mode,
        device or ('cuda' if torch.cuda.is_available() else 'cpu'),
        operators,
    )
    files = output_files(out or Path('work_dirs') / settings.config / 'benchmark', force)
    console = Console(stderr=as_json)
    with scope_of(cfg):
        cases, absent = make_cases(task, name, cfg, layouts, chosen), []
        if against:
            others, absent = rival_cases(cfg, name)
            cases += others
        rows, rates = measure_cases(cases, settings, console, score)
    record = make_record([*rows, *absent], settings, rates)
    write(record, files)
    if as_json:
        click.echo(files[0].read_text(encoding='utf-8'), nl=False)
        return
    table = render(record)
    # Lines that the terminal breaks can still be read, columns that are cut can not.
    console.width = max(console.width, Measurement.get(WIDE, WIDE.options, table).maximum)
    console.print(table)
    console.print(f'written to {files[0]} and {files[1]}', soft_wrap=True)
