"""``mmuniformer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mmengine.config import Config
from rich.console import Console
from torch import Tensor, nn

from mmuniformer.apis.config import load_config, test_image_size
from mmuniformer.apis.models import build_model
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.deployment import agreement, files, images, quantize, score, settings
from mmuniformer.deployment import check as checks
from mmuniformer.deployment.networks import Target, is_detector, make_target
from mmuniformer.errors import UserError

OPSET = 18
TOLERANCE = 1e-3
CALIBRATION_IMAGES = 64
CHECKED_IMAGES = 16


def pictures_to_check(cfg: Config, model: nn.Module, shape: tuple[int, int]) -> list[Tensor]:
    """Return the images of the test data that a detector's file is compared on.

    Raises:
        UserError: The data are missing, or no image fits into the shape.
    """
    cure = (
        'a detector is checked on test data: set their place by --cfg-options, or leave the check '
        'out by --no-check'
    )
    try:
        pictures = list(images.canvases(cfg, model, shape, CHECKED_IMAGES))
    except UserError as error:
        raise UserError(f'{error} ({cure})') from error
    if not pictures:
        raise UserError(f'no image of the test data fits into {shape[0]} x {shape[1]} ({cure})')
    return pictures


def agrees(
    file: Path, target: Target, pictures: list[Tensor], example: checks.Shape, dynamic: bool,
    tolerance: float, console: Console,
) -> bool:  # fmt: skip
    """Compare a file with PyTorch, print how it went and tell whether it passes."""
    run = files.runner(file)
    if target.detects:
        found = agreement.match(run, target.expected, pictures, tolerance)
        console.print(agreement.render(found, tolerance))
        return found.enough
    shapes = checks.shapes_to_check(example, dynamic)
    compared = list(checks.compare(run, target.expected, target.channels, shapes))
    console.print(checks.render(compared, tolerance))
    return all(each.within(tolerance) for each in compared)


def write_int8(
    cfg: Config, model: nn.Module, source: Path, target: Path, folder: Path | None
) -> None:
    """Write the 8-bit form of a file, calibrated by a folder's pictures or the training data."""
    if folder is None:
        source_images = images.data_images(cfg, model, 'train', CALIBRATION_IMAGES)
    else:
        source_images = images.folder_images(cfg, model, folder, CALIBRATION_IMAGES)
    quantize.write_int8(source, target, source_images)


def check_options(
    format: str, backbone_only: bool, batch_size: int | None, dynamic: bool, int8: bool,
    calibrate: Path | None, scores: bool, checkpoint: str | None,
) -> None:  # fmt: skip
    """Refuse options that do not go together.

    Raises:
        UserError: Says which and what to do.
    """
    if batch_size and dynamic:
        raise UserError('--batch-size goes with --static: a dynamic file takes any batch')
    if int8 and (format != 'onnx' or not dynamic):
        raise UserError('--int8 goes with --format onnx and --dynamic')
    if calibrate and not int8:
        raise UserError('--calibrate goes with --int8')
    if scores and (format != 'onnx' or not dynamic or backbone_only or checkpoint is None):
        raise UserError(
            '--score is of a whole, trained model: give its CHECKPOINT, --format onnx, --dynamic '
            'and no --backbone-only'
        )


def check_detector_options(
    format: str, batch_size: int | None, dynamic: bool, int8: bool, scores: bool
) -> None:
    """Refuse options that a whole detector can not have.

    Raises:
        UserError: Says which and what to do.
    """
    if int8 or scores:
        raise UserError('--int8 and --score are of segmentors and pose estimators: leave them out')
    if format != 'onnx' or dynamic or (batch_size or 1) > 1:
        raise UserError(
            'a whole detector is exported as ONNX for one image of one size: use --format onnx '
            '--static without --batch-size, or --backbone-only'
        )


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
    '--dynamic/--static', default=None,
    help='Take any batch and any image size from 64 x 64 (default, but of detectors), or only the '
    'given ones.',
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
@click.option('--int8', is_flag=True, help='Also write CONFIG-int8.onnx, in 8-bit integers.')
@click.option(
    '--calibrate', type=click.Path(exists=True, file_okay=False, path_type=Path), metavar='FOLDER',
    help='Pictures to measure ranges on for --int8.  [default: the training data]',
)  # fmt: skip
@click.option(
    '--score', 'scores', is_flag=True,
    help="Score PyTorch and the files on the config's test data, and time them.",
)  # fmt: skip
@click.option(
    '--out', type=click.Path(dir_okay=False, path_type=Path),
    help='File.  [default: work_dirs/CONFIG/CONFIG.onnx or .pt2]',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace files that are there.')
@cfg_options
def command(
    config: str, checkpoint: str | None, format: str, backbone_only: bool,
    shape: tuple[int, int] | None, batch_size: int | None, dynamic: bool | None, deploy: bool,
    opset: int, check: bool, tolerance: float, int8: bool, calibrate: Path | None, scores: bool,
    out: Path | None, force: bool, cfg_options: dict[str, Any],
) -> None:  # fmt: skip
    """Export CONFIG's model, with the weights of CHECKPOINT, to a file that needs no mmuniformer.

    The input `image` is normalized, (B, 3, H, W); the file's metadata tell mean, std and channel
    order. Outputs: of a backbone `stage1` to `stage4`; of a segmentor `logits` (B, classes, H, W);
    of a pose estimator `heatmaps` (B, key points, H/4, W/4). Every layout of stage 3 but 'auto'
    takes dynamic sizes, and so do the light networks. Mask R-CNN takes one image of one size;
    outputs: `boxes`, `scores`, `labels` and `masks` (cut out by the boxes), filled up with score 0.
    """
    cfg = load_config(config, cfg_options)
    detects = is_detector(cfg, backbone_only)
    if dynamic is None:
        dynamic = not detects
    if detects:
        check_detector_options(format, batch_size, dynamic, int8, scores)
    check_options(format, backbone_only, batch_size, dynamic, int8, calibrate, scores, checkpoint)
    file, *quantized = settings.output_files(out, cfg, format, backbone_only, int8, force)
    if format == 'onnx':
        files.check_libraries()
    if scores:
        score.check_data(cfg)
    example = (batch_size or 1, *(shape or test_image_size(cfg)))
    if dynamic and min(example[1:]) < files.MIN_SIDE:
        raise UserError(
            f'--shape {example[1]} {example[2]}: a dynamic file takes sides from '
            f'{files.MIN_SIDE} up; export a smaller one by --static'
        )
    with files.quiet():
        model = build_model(cfg, checkpoint)
        metadata = settings.metadata_of(cfg, model, example[1:])
    target = make_target(cfg, model, backbone_only, deploy, example[1:])
    if dynamic:
        settings.refuse_auto(target.network)
    console = Console()
    if checkpoint is None:
        console.print('no CHECKPOINT is given: the weights are random', style='yellow')
    pictures = pictures_to_check(cfg, model, example[1:]) if check and detects else []
    with files.appearing(file) as unchecked:
        with console.status(f'writing {file} ...'):
            files.write(target, unchecked, example, dynamic, opset, metadata)
        if check:
            with console.status('comparing it with PyTorch ...'):
                same = agrees(unchecked, target, pictures, example, dynamic, tolerance, console)
            if not same:
                raise UserError(
                    f'{file} was not written: its outputs are not those of PyTorch within '
                    f'--tolerance {tolerance:g}'
                )
    for smaller in quantized:
        with console.status(f'writing {smaller} ...'):
            write_int8(cfg, model, file, smaller, calibrate)
    if scores:
        with console.status('scoring ...'):
            table = score.compare(cfg, model, target, [file, *quantized], example)
        console.print(table)
    described = f'opset {opset}, ' if format == 'onnx' else ''
    for each in (file, *quantized):
        size = each.stat().st_size / 1e6
        console.print(f'written to {each} ({described}{size:.1f} MB)', soft_wrap=True)
