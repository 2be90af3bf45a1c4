"""``mmuniformer benchmark``: one sub-command a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config
from rich.console import Console

from mmuniformer.analysis.benchmark import report
from mmuniformer.analysis.benchmark.cases import (
    INFERENCE,
    PROFILES,
    SWITCHES,
    TRAINING,
    Settings,
    parse_profiles,
)
from mmuniformer.analysis.benchmark.run import make_cases, measure_cases
from mmuniformer.analysis.benchmark.scores import check_data
from mmuniformer.analysis.complexity import published_shape
from mmuniformer.analysis.layouts import TEST_LAYOUTS, Layout, layouts_of
from mmuniformer.apis.config import TASKS, framework_of, load_config, scope_of
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError
from mmuniformer.models.arch import UNIFORMER, UNIFORMER_LIGHT

LIGHT = 'light-'
ARCHS = (*UNIFORMER, *(LIGHT + name for name in UNIFORMER_LIGHT))
ARCH_SHAPE = (512, 512)
DEFAULT_PROFILES = {INFERENCE: 'plain,fused,deploy,bf16', TRAINING: 'plain,fused,cp,bf16'}
HELP = {
    'backbone': 'Measure a backbone alone: NETWORK is an arch (small, light-xs, ...) or a config.',
    'det': 'Measure a detector: heads on 1,000 proposals and masks on 100, as FLOPs are counted.',
    'seg': """Measure a segmentor in several layouts of stage 3, with the weights of one CHECKPOINT.

    Scores on the test data are taken where CHECKPOINT is given. Time and memory are those of a
    whole prediction: from the normalized image to its label map. Without --profiles only fused is
    measured. Without --layouts a model with a global stage 3 is measured in global, w32 and h32.
    """,
    'pose': 'Measure a pose estimator, from the cropped and normalized image to heatmaps.',
}
DATA = click.option('--data/--no-data', default=None, help='Score the test data, or not.')
LISTED = '; '.join(f'{profile.name}: {profile.about}' for profile in PROFILES.values())
OPTIONS = (
    click.option('--profiles', metavar='NAME,...', help=f'{LISTED}.'),
    click.option('--train', is_flag=True, help='Measure forward and backward of a training step.'),
    click.option(
        '--layouts', '--layout', metavar='NAME,...', help='Of stage 3: global, auto, w32, h14, ...'
    ),
    click.option(
        '--shape', 'shapes', type=click.IntRange(32), nargs=2, metavar='H W', multiple=True,
        help='Image height and width; may be repeated.  [default: that of published FLOPs]',
    ),
    click.option('--batch-size', type=click.IntRange(1), default=1, show_default=True),
    click.option(
        '--repeats', type=click.IntRange(0), default=5, show_default=True,
        help='Number of timed rounds. 0 takes no time.',
    ),
    click.option('--operators', is_flag=True, help='Also split the time by kind of operator.'),
    click.option('--device', help='Like cpu or cuda:0.  [default: cuda if there is one]'),
    click.option('--against', is_flag=True, help='Also measure Swin-T, ConvNeXt-T and ResNet-50.'),
    click.option('--json', 'as_json', is_flag=True, help='Print JSON instead of a table.'),
    click.option(
        '--out', type=click.Path(path_type=Path),
        help='Folder for benchmark.json and benchmark.csv.  [default: work_dirs/CONFIG/benchmark]',
    ),
    click.option('--force', is_flag=True, help='Replace the figures of an earlier run.'),
    cfg_options,
)  # fmt: skip


@click.group('benchmark')
def command() -> None:
    """Measure time, memory, FLOPs and accuracy side by side."""


def define(task: str) -> click.Command:
    """Return the sub-command of a task."""

    def callback(**options: Any) -> None:
        run(task, **options)

    model = [click.argument('network', metavar='NETWORK' if task == 'backbone' else 'CONFIG')]
    if task != 'backbone':
        model.append(click.argument('checkpoint', required=False))
    for option in (*model, *[DATA] * (task == 'seg'), *OPTIONS)[::-1]:
        callback = option(callback)
    return click.command(task, cls=ConfigCommand, help=HELP[task])(callback)


for name in HELP:
    command.add_command(define(name))


def config_of(task: str, network: str, cfg_options: dict[str, Any]) -> Config:
    """Return a task's config; that of a backbone may be made from an arch's name.

    Raises:
        UserError: It cannot be read, is of another task, or an option is a profile's to set.
    """
    for key in {f'model.backbone.{name}' for name in SWITCHES} & cfg_options.keys():
        raise UserError(f'--cfg-options {key}: profiles set it, choose by --profiles')
    if task == 'backbone' and network in ARCHS:
        kind = 'UniFormerLight' if network.startswith(LIGHT) else 'UniFormer'
        settings = {'type': f'mmuniformer.{kind}', 'arch': network.removeprefix(LIGHT)}
        cfg = Config({'model': {'backbone': settings}})
        cfg.merge_from_dict(cfg_options)
        return cfg
    try:
        cfg = load_config(network, cfg_options)
    except UserError as error:
        hint = f'; archs are {", ".join(ARCHS)}' if task == 'backbone' else ''
        raise UserError(f'{error}{hint}') from error
    if task != 'backbone' and framework_of(cfg) != TASKS[task].scope:
        raise UserError(f'{network} is not a config of a {TASKS[task].model}')
    if 'backbone' not in cfg.get('model', {}):
        raise UserError(f'{network}: the config has no model.backbone')
    return cfg


def run(
    task: str, network: str, cfg_options: dict[str, Any], profiles: str | None, train: bool,
    layouts: str | None, shapes: tuple[tuple[int, int], ...], batch_size: int, repeats: int,
    operators: bool, device: str | None, against: bool, as_json: bool, out: Path | None,
    force: bool, checkpoint: str | None = None, data: bool | None = None,
) -> None:  # fmt: skip
    """Measure a config's model in layouts and profiles; write the figures and show them.

    Raises:
        UserError: An option does not fit the config or the others.
    """
    if data and not checkpoint:
        raise UserError('--data: scores need the weights; give the CHECKPOINT')
    if data and train:
        raise UserError('--data goes with inference: leave --train out')
    cfg = config_of(task, network, cfg_options)
    mode = TRAINING if train else INFERENCE
    if task == 'seg' and not train:
        profiles = profiles or 'fused'
        if layouts is None and Layout.of(cfg).name == 'global':
            layouts = TEST_LAYOUTS
    chosen = parse_profiles(profiles or DEFAULT_PROFILES[mode], mode)
    if operators and any(profile.compiled for profile in chosen):
        raise UserError('--operators cannot see into compiled code: leave compile out')
    shapes = shapes or (ARCH_SHAPE if network in ARCHS else published_shape(cfg),)
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    settings = Settings(
        task, Path(network).stem, checkpoint, shapes, batch_size, repeats, mode, device, operators
    )
    cases, absent = make_cases(cfg, settings, layouts_of(cfg, layouts), chosen, against)
    files = report.output_files(out or Path('work_dirs') / settings.config / 'benchmark', force)
    scored = task == 'seg' and (bool(checkpoint) and not train if data is None else data)
    if scored:
        check_data(cfg)
    console = Console(stderr=as_json)
    with scope_of(cfg):
        rows, rates = measure_cases(cases, settings, console, scored)
    record = report.make_record([*rows, *absent], settings, rates)
    report.write(record, files)
    if as_json:
        click.echo(files[0].read_text(encoding='utf-8'), nl=False)
    else:
        report.show(record, console)
        console.print(f'written to {files[0]} and {files[1]}', soft_wrap=True)
