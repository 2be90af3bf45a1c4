"""Exporting a config's model: written, compared with PyTorch, quantized and scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from torch import nn

from mmuniformer.apis.config import framework_of, scope_of, split_data, test_image_size
from mmuniformer.apis.models import build_model, quiet
from mmuniformer.datasets.checks.config import dataset_meta
from mmuniformer.datasets.checks.dataset import check_dataset
from mmuniformer.deployment import comparison, files, images
from mmuniformer.deployment.networks import is_detector, make_target
from mmuniformer.errors import UserError, refuse_existing
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.files import whole_file
from mmuniformer.version import __version__

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Options:
    """The options of ``mmuniformer export``; see its help.

    ``shape`` is (height, width), ``static`` the batch of a file of fixed sizes.
    """

    format: str = 'onnx'
    backbone_only: bool = False
    shape: tuple[int, int] | None = None
    static: int | None = None
    check: bool = True
    tolerance: float = 1e-3
    int8: bool = False
    calibrate: Path | None = None
    score: bool = False
    out: Path | None = None
    force: bool = False

    def validate(self, detects: bool, checkpoint: str | None) -> None:
        """Refuse options that contradict each other, or a whole detector.

        Raises:
            UserError: Names the options.
        """
        complete = files.FORMATS[self.format].complete
        if detects and (self.int8 or self.score):
            raise UserError('--int8 and --score are for segmentors and pose estimators')
        if detects and (not complete or (self.static or 1) > 1):
            raise UserError(
                'a whole detector is exported as ONNX for one image of one size: leave out '
                '--format and --static, or add --backbone-only'
            )
        if self.int8 and (not complete or self.static):
            raise UserError('--int8 needs --format onnx and no --static')
        if self.calibrate and not self.int8:
            raise UserError('--calibrate needs --int8')
        if self.score and (not complete or self.static or self.backbone_only or checkpoint is None):
            raise UserError(
                '--score needs a whole, trained model: give its CHECKPOINT, --format onnx, and '
                'neither --static nor --backbone-only'
            )


def export(
    cfg: Config, checkpoint: str | None, options: Options, console: Console | None = None
) -> list[Path]:
    """Export a config's model.

    Args:
        cfg: The config.
        checkpoint: Path or URL of its weights; None for random ones.
        options: What to write and how.
        console: Where comparisons are printed.

    Returns:
        The files that were written.

    Raises:
        UserError: An option does not fit, the model cannot be exported, or the outputs of the file
            differ from PyTorch's.
        CheckpointError: The checkpoint cannot be read or belongs to another model.
    """
    console = console or Console()
    detects = is_detector(cfg, options.backbone_only)
    dynamic = not (options.static or detects)
    options.validate(detects, checkpoint)
    form = files.FORMATS[options.format]
    files.check_libraries(form.libraries)
    file, *quantized = output_files(cfg, options)
    if options.score:
        for name in ('test_dataloader', 'test_evaluator'):
            if name not in cfg:
                raise UserError(f'--score: the config has no {name}')
        if cfg.get('check_data', True):
            with quiet(), scope_of(cfg):
                check_dataset(cfg.test_dataloader.dataset)
    size = options.shape or test_image_size(cfg)
    if dynamic and min(size) < files.MIN_DYNAMIC_SIDE:
        raise UserError(
            f'--shape {size[0]} {size[1]}: a dynamic file takes sides from '
            f'{files.MIN_DYNAMIC_SIDE} up; add --static 1 for a smaller one'
        )
    example = (options.static or 1, *size)
    with quiet():
        model = build_model(cfg, checkpoint)
        metadata = metadata_of(cfg, model, size)
    target = make_target(cfg, model, options.backbone_only, size)
    if dynamic and getattr(find_backbone(model)[1], 'stage3_attn', None) == 'auto':
        raise UserError(
            "stage3_attn='auto' chooses the layout by the image size, which a file with dynamic "
            'sizes cannot: add --cfg-options model.backbone.stage3_attn=hybrid, or --static 1'
        )
    if checkpoint is None:
        console.print('no CHECKPOINT: the weights are random', style='yellow')
    calibration = detected = None
    if options.int8:
        source = options.calibrate or 'train'
        calibration = images.images_from(source, cfg, model, CALIBRATION_IMAGES)
    if options.check and detects:
        detected = images.images_to_compare(cfg, model, size)
    with whole_file(file) as unchecked:
        with console.status(f'writing {file} ...'):
            program = files.trace(target, example, dynamic)
            form.write(program, target.output_names, unchecked, metadata)
        if options.check:
            with console.status('comparing it with PyTorch ...'):
                run, tolerance = form.run(unchecked), options.tolerance
                if detects:
                    rows = comparison.compare_detections(run, target.expected, detected, tolerance)
                else:
                    shapes = comparison.shapes_to_compare(example, dynamic)
                    rows = comparison.compare_outputs(run, target, shapes, tolerance)
            console.print(comparison.comparison_table(rows, tolerance))
            if any(row['result'] is False for row in rows):
                raise UserError(
                    f'{file} was not written: its outputs differ from those of PyTorch by more '
                    f'than --tolerance {tolerance:g}'
                )
    for smaller in quantized:
        with console.status(f'writing {smaller} ...'), whole_file(smaller) as unfinished:
            files.write_int8(file, unfinished, calibration)
    if options.score:
        with console.status('scoring ...'):
            table = comparison.score_table(cfg, model, target, [file, *quantized], example)
        console.print(table)
    return [file, *quantized]


def output_files(cfg: Config, options: Options) -> list[Path]:
    """Return the file to write and, if asked for, its 8-bit form; create their folder.

    Raises:
        UserError: A file exists, has another suffix, or the folder cannot be created.
    """
    suffix = files.FORMATS[options.format].suffix
    stem = Path(cfg.filename).stem
    name = f'{stem}{"_backbone" * options.backbone_only}{suffix}'
    file = options.out or Path('work_dirs') / stem / name
    if file.suffix != suffix:
        raise UserError(f'--out {file}: the suffix of --format {options.format} is {suffix}')
    written = [file, *[file.with_stem(f'{file.stem}-int8')] * options.int8]
    for each in written:
        refuse_existing(each, options.force)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {file}: {error.strerror}; name another folder') from error
    return written


def metadata_of(cfg: Config, model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a user of the file has to know: how to prepare images, names of classes."""
    preprocessor = cfg.model.get('data_preprocessor', {})
    meta = {}
    if framework_of(cfg) and 'test_dataloader' in cfg:
        with scope_of(cfg):
            meta = {**dataset_meta(split_data(cfg)), **getattr(model, 'dataset_meta', {})}
    names = meta.get('classes') or dict(meta.get('keypoint_id2name', {})).values()
    return {
        'mmuniformer': __version__,
        'config': Path(cfg.filename).stem,
        'size': list(size),
        'mean': list(preprocessor.get('mean') or (0.0, 0.0, 0.0)),
        'std': list(preprocessor.get('std') or (1.0, 1.0, 1.0)),
        'channels': 'RGB' if preprocessor.get('bgr_to_rgb') else 'BGR',
        'names': list(names),
    }
