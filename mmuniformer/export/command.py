"""``mmuniformer export``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmuniformer.checkpoints import find_backbone
from mmuniformer.errors import UserError
from mmuniformer.export import files
from mmuniformer.export.check import Comparison, compare, shapes_to_check
from mmuniformer.export.networks import Target, make_target
from mmuniformer.loading import ConfigCommand, build_model, cfg_options, load_config, scope_of
from mmuniformer.predict.network import config_meta, test_data
from mmuniformer.version import __version__

OPSET = 18
MULTIPLE = 32
TOLERANCE = 1e-3


def default_shape(cfg: Config) -> tuple[int, int]:
    """Return the image height and width that a config tests at, rounded up to a multiple of 32.

    Raises:
        UserError: The config does not tell.
    """
    if 'input_size' in cfg.get('codec', {}):
        width, height = cfg.codec.input_size
        return height, width
    for transform in test_data(cfg)['pipeline']:
        if str(transform['type']).endswith('Resize') and 'scale' in transform:
            sides = sorted(math.ceil(side / MULTIPLE) * MULTIPLE for side in transform['scale'])
            return sides[0], sides[1]
    raise UserError('the config does not tell the size of images: give --shape HEIGHT WIDTH')


def metadata_of(cfg: Config, model: torch.nn.Module, shape: tuple[int, int]) -> dict[str, Any]:
    """Return what a user of the file needs to know: how images are prepared, what classes mean."""
    images = cfg.model.get('data_preprocessor', {})
    known = {}
    if 'test_dataloader' in cfg:
        with scope_of(cfg):
            known = {**config_meta(cfg), **getattr(model, 'dataset_meta', {})}
    names = known.get('classes') or [
        entry['name'] for entry in known.get('keypoint_info', {}).values()
    ]
    return {
        'mmuniformer': __version__,
        'config': Path(cfg.filename).stem,
        'size': list(shape),
        'mean': list(images.get('mean') or (0.0, 0.0, 0.0)),
        'std': list(images.get('std') or (1.0, 1.0, 1.0)),
        'channels': 'RGB' if images.get('bgr_to_rgb') else 'BGR',
        'names': list(names),
    }


def output_file(out: Path | None, cfg: Config, format: str, backbone: bool, force: bool) -> Path:
    """Return the file to write, its folder made, before anything is computed.

    Raises:
        UserError: It is there and ``force`` is not given, or its folder can't be made.
    """
    stem = Path(cfg.filename).stem
    name = f'{stem}{"_backbone" * backbone}{files.SUFFIXES[format]}'
    file = out or Path('work_dirs') / stem / name
    if file.suffix != files.SUFFIXES[format]:
        raise UserError(f'--out {file}: a file of {format} ends in {files.SUFFIXES[format]}')
    if file.exists() and not force:
        raise UserError(f'{file} is there already: name another file with --out, or --force')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {file}: {error.strerror}; name another folder') from error
    return file


def refuse_auto(target: Target) -> None:
    """Refuse dynamic sizes for a layout that is chosen by the size.

    Raises:
        UserError: The backbone's layout is 'auto'.
    """
    if getattr(find_backbone(target.network)[1], 'stage3_attn', None) == 'auto':
        raise UserError(
            "stage3_attn='auto' chooses by the image's size, which a file with dynamic sizes can "
            'not: choose one by --cfg-options model.backbone.stage3_attn=hybrid, or --static'
        )


def write(
    target: Target, file: Path, format: str, shape: tuple[int, int, int], dynamic: bool, opset: int,
    metadata: dict[str, Any],
) -> None:  # fmt: skip
    """Export a target to a file."""
    program = files.trace(target, shape, dynamic)
    if format == 'onnx':
        files.write_onnx(program, file, target.output_names, opset, metadata)
    else:
        files.write_torch_export(program, file, metadata)


def run_file(file: Path):
    """Return the call that runs a file of either format."""
    return files.run_onnx(file) if file.suffix == '.onnx' else files.run_torch_export(file)


def render(comparisons: list[Comparison], tolerance: float) -> Table:
    """Lay comparisons out for the terminal."""
    table = Table(
        title='the file against PyTorch', caption=f'tolerance: {tolerance:g} of the value'
    )
    table.add_column('batch x height x width')
    for name in ('largest difference', 'largest value', 'verdict'):
        table.add_column(name, justify='right')
    for each in comparisons:
        verdict = '[green]agrees' if each.within(tolerance) else '[red]differs'
        shape = ' x '.join(map(str, each.shape))
        table.add_row(shape, f'{each.difference:.2e}', f'{each.largest:.3g}', verdict)
    return table


@click.command('export', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@click.option(
    '--format', type=click.Choice(list(files.SUFFIXES)), default='onnx', show_default=True,
    help='ONNX, or what torch.export.load reads.',
)  # fmt: skip
@click.option('--backbone-only', is_flag=True, help='Leave neck and heads out.')
@click.option(
    '--shape', type=click.IntRange(32), nargs=2, metavar='H W',
    help="Image height and width.  [default: the config's test size]",
)  # fmt: skip
@click.option('--batch-size', type=click.IntRange(1), help='Of a --static file.  [default: 1]')
@click.option(
    '--dynamic/--static', default=True, show_default=True,
    help='Take any batch and any image size from 64 x 64, or only the given ones.',
)  # fmt: skip
@click.option(
    '--deploy/--no-deploy', default=True, show_default=True,
    help='Fold norms, residuals and LayerScale into weights first.',
)  # fmt: skip
@click.option(
    '--opset', type=click.IntRange(18, 23), default=OPSET, show_default=True,
    help="Version of ONNX's operators.",
)  # fmt: skip
@click.option(
    '--check/--no-check', default=True, show_default=True,
    help='Compare the file with PyTorch, at several sizes where they are dynamic.',
)  # fmt: skip
@click.option(
    '--tolerance', type=click.FloatRange(0), default=TOLERANCE, show_default=True,
    help='Largest difference that passes, as a share of the largest value or of 1.',
)  # fmt: skip
@click.option(
    '--out', type=click.Path(dir_okay=False, path_type=Path),
    help='File.  [default: work_dirs/CONFIG/CONFIG.onnx or .pt2]',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace the file.')
@cfg_options
def command(
    config: str, checkpoint: str | None, format: str, backbone_only: bool,
    shape: tuple[int, int] | None, batch_size: int | None, dynamic: bool, deploy: bool, opset: int,
    check: bool, tolerance: float, out: Path | None, force: bool, cfg_options: dict[str, Any],
) -> None:  # fmt: skip
    """Export CONFIG's model, with the weights of CHECKPOINT, to a file that needs no mmuniformer.

    The input `image` is normalized, (B, 3, H, W); the file's metadata tell mean, std and channel
    order. Outputs: of a backbone `stage1` to `stage4`; of a segmentor `logits` (B, classes, H, W);
    of a pose estimator `heatmaps` (B, key points, H/4, W/4). Every layout of stage 3 but 'auto'
    takes dynamic sizes, and so do the light networks.
    """
    if batch_size and dynamic:
        raise UserError('--batch-size goes with --static: a dynamic file takes any batch')
    cfg = load_config(config, cfg_options)
    file = output_file(out, cfg, format, backbone_only, force)
    if format == 'onnx':
        files.check_libraries()
    example = (batch_size or 1, *(shape or default_shape(cfg)))
    if dynamic and min(example[1:]) < files.MIN_SIDE:
        raise UserError(
            f'--shape {example[1]} {example[2]}: a dynamic file takes sides from '
            f'{files.MIN_SIDE} up; export a smaller one by --static'
        )
    with files.quiet():
        model = build_model(cfg, checkpoint)
    target = make_target(cfg, model, backbone_only, deploy)
    if dynamic:
        refuse_auto(target)
    console = Console()
    if checkpoint is None:
        console.print('no CHECKPOINT is given: the weights are random', style='yellow')
    with files.quiet():
        metadata = metadata_of(cfg, model, example[1:])
    unchecked = file.with_stem(f'{file.stem}.unchecked')
    with console.status(f'writing {file} ...'):
        write(target, unchecked, format, example, dynamic, opset, metadata)
    if check:
        with console.status('comparing it with PyTorch ...'):
            shapes = shapes_to_check(example, dynamic)
            run = run_file(unchecked)
            comparisons = list(compare(run, target.expected, target.channels, shapes))
        console.print(render(comparisons, tolerance))
        if not all(each.within(tolerance) for each in comparisons):
            unchecked.unlink()
            raise UserError(
                f'{file} was not written: its outputs are not those of PyTorch within '
                f'--tolerance {tolerance:g}'
            )
    unchecked.replace(file)
    described = f'opset {opset}, ' if format == 'onnx' else ''
    size = file.stat().st_size / 1e6
    console.print(f'written to {file} ({described}{size:.1f} MB)', soft_wrap=True)
