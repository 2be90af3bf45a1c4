"""``mmuniformer benchmark``: time, memory, FLOPs and accuracy of profiles and layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mmuniformer.analysis.benchmark.profiles import PROFILES, parse_profiles
from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import TASKS, ConfigCommand, cfg_options, device
from mmuniformer.errors import UserError, refuse_existing

ARCH_SHAPE = (512, 512)
REPEATS = 5
DEFAULT_PROFILES = {'inference': 'plain,fused,deploy,bf16', 'training': 'plain,fused,cp,bf16'}
WITH_LOOP = {'task', 'network', 'train', 'loop', 'repeats', 'out', 'force', 'cfg_options'}
"""Parameters that a measurement of the training loop takes."""
LISTED = '; '.join(f'{profile.name}: {profile.about}' for profile in PROFILES.values())


@click.command('benchmark', cls=ConfigCommand)
@click.argument('task', metavar='TASK', type=click.Choice(['backbone', *TASKS]))
@click.argument('network')
@click.argument('checkpoint', required=False)
@click.option('--profiles', metavar='NAME,...', help=f'{LISTED}.')
@click.option('--train', is_flag=True, help='Measure forward and backward of a training step.')
@click.option('--step', is_flag=True, help="With --train: the config's optimizer, too.")
@click.option(
    '--loop', is_flag=True,
    help='With --train: the training loop of CONFIG on its data, with optimizer, hooks and logs.',
)  # fmt: skip
@click.option(
    '--amp', type=click.Choice(['bfloat16', 'float16']),
    help='Compute in this type under autocast, in all profiles.',
)  # fmt: skip
@click.option(
    '--layouts', '--layout', metavar='NAME,...',
    help='Stage-3 layouts to compare: global, auto, w32 (windows of 32 tokens), h14 (hybrid), ...',
)  # fmt: skip
@click.option(
    '--shape', 'shapes', type=click.IntRange(32), nargs=2, metavar='H W', multiple=True,
    help="Image height and width; may be repeated.  [default: the task's published size; "
    'of an arch 512 512]',
)  # fmt: skip
@click.option(
    '--batch-size',
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help='Images or clips per run.',
)
@click.option(
    '--repeats', type=click.IntRange(0),
    help='Number of timed rounds; 0 measures memory only.  [default: 5; of --loop 50 steps]',
)  # fmt: skip
@click.option('--operators', is_flag=True, help='Also split the time by kind of operator.')
@device
@click.option(
    '--against', is_flag=True,
    help="Also measure Swin-T, ConvNeXt-T and ResNet-50; for clips MMAction2's own UniFormer, "
    'VideoSwin-T and SlowOnly-50.',
)  # fmt: skip
@click.option('--no-data', is_flag=True, help='Do not evaluate a segmentor with CHECKPOINT.')
@click.option(
    '--out', type=click.Path(path_type=Path), metavar='DIR',
    help='Folder for benchmark.json.  [default: work_dirs/CONFIG/benchmark]',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace the figures of an earlier run.')
@cfg_options
def command(
    task: str, network: str, checkpoint: str | None, cfg_options: dict[str, Any],
    profiles: str | None, train: bool, step: bool, loop: bool, amp: str | None,
    layouts: str | None, shapes: tuple[tuple[int, int], ...],
    batch_size: int, repeats: int | None, operators: bool, device: str | None, against: bool,
    no_data: bool, out: Path | None, force: bool,
) -> None:  # fmt: skip
    """Measure time, memory, FLOPs and accuracy side by side.

    \b
    TASK is one of:
      backbone  a backbone alone: NETWORK is an arch (nano, small, small_plus, base, base_ls,
                large, light-nano, light-xs, light-xxs) or a config
      det       a detector: heads on 1,000 proposals, masks on 100, as FLOPs are counted
      seg       a segmentor, from the normalized image to its label map
      pose      a pose estimator, from the cropped and normalized image to heatmaps
      cls       an image classifier, from the normalized image to logits
      video     a recognizer, from one view, a clip of the config's length, to logits

    --train --loop trains by CONFIG as `mmuniformer train` does, without validation and checkpoints,
    and compares a step of the loop with the network alone on the same batches.

    NETWORK is a config, by path or name. Without CHECKPOINT the weights are random. For segmentors
    the default profile is `fused`, a global stage 3 is compared with w32 and h32, and with
    CHECKPOINT they are also evaluated on the test data.
    """  # noqa: D301
    scored = task == 'seg' and checkpoint is not None and not (train or no_data)
    if checkpoint and task == 'backbone':
        raise UserError('a backbone is measured without CHECKPOINT: leave it out')
    if step and (task == 'backbone' or not train):
        raise UserError('--step: the optimizer runs in the training of a whole model, with --train')
    if loop:
        refuse_with_loop(click.get_current_context())
    with loading():
        import torch
        from mmengine.registry import DATASETS
        from rich.console import Console

        from mmuniformer.analysis.benchmark import report
        from mmuniformer.analysis.benchmark.cases import Settings
        from mmuniformer.analysis.benchmark.loop import STEPS, measure_loop
        from mmuniformer.analysis.benchmark.network import ARCHS, config_of
        from mmuniformer.analysis.benchmark.run import make_cases, measure_cases
        from mmuniformer.analysis.complexity import published_shape
        from mmuniformer.analysis.layouts import TEST_LAYOUTS, Layout, layouts_of
        from mmuniformer.apis.config import scope_of
        from mmuniformer.datasets.checks.dataset import check_dataset
        from mmuniformer.datasets.checks.label_maps import check_files
    cfg = config_of(task, network, cfg_options)
    mode = 'training' if train else 'inference'
    if task == 'seg' and not train:
        profiles = profiles or 'fused'
        if layouts is None and Layout.of(cfg).name == 'global':
            layouts = TEST_LAYOUTS
    chosen = parse_profiles(profiles or DEFAULT_PROFILES[mode], mode)
    if operators and any(profile.compiled for profile in chosen):
        raise UserError('--operators cannot see into compiled code: leave compile out')
    if loop:
        shapes, batch_size = (), cfg.train_dataloader.batch_size
    else:
        shapes = shapes or (ARCH_SHAPE if network in ARCHS else published_shape(cfg),)
    if repeats is None:
        repeats = STEPS if loop else REPEATS
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    config = Path(network).stem
    settings = Settings(
        task, config, checkpoint, shapes, batch_size, repeats, mode, device, operators,
        amp, step, loop,
    )  # fmt: skip
    cases, absent = make_cases(cfg, settings, layouts_of(cfg, layouts), chosen, against)
    out = out or Path('work_dirs', config, 'benchmark')
    file = out / 'benchmark.json'
    refuse_existing(file, force)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}; name another folder') from error
    console = Console()
    with scope_of(cfg):
        if scored and cfg.get('check_data', True):
            check_dataset(cfg.test_dataloader.dataset)
            check_files(DATASETS.build(cfg.test_dataloader.dataset))
        if loop:
            rows, rates = measure_loop(cfg, repeats, out, console), {}
        else:
            rows, rates = measure_cases(cases, settings, console, scored)
    record = report.make_record([*rows, *absent], settings, rates)
    file.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    report.show(record, console)
    console.print(f'written to {file}', soft_wrap=True)


def refuse_with_loop(ctx: click.Context) -> None:
    """Refuse what a measurement of the training loop does not take."""
    if ctx.params['task'] == 'backbone' or not ctx.params['train']:
        raise UserError(
            '--loop: a whole model is trained on its data: mmuniformer benchmark det|seg|pose|cls|'
            'video CONFIG --train --loop'
        )
    given = [
        parameter.opts[-1] if isinstance(parameter, click.Option) else parameter.human_readable_name
        for parameter in ctx.command.params
        if parameter.name not in WITH_LOOP
        and ctx.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise UserError(
            f'--loop trains as the config says, without {", ".join(given)}: leave it out, and '
            'change the config by --cfg-options'
        )
    if ctx.params['repeats'] == 0:
        raise UserError('--loop: --repeats is its number of steps, 1 or more')
