"""Exporting a config's model: written to a file, which is compared with PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console
from torch import nn

from mmuniformer.apis.config import (
    channel_order,
    clip_views,
    framework_of,
    scope_of,
    split_data,
    test_image_size,
)
from mmuniformer.apis.models import build_model, quiet
from mmuniformer.datasets.checks.config import dataset_meta
from mmuniformer.deployment import comparison, files
from mmuniformer.deployment.networks import is_detector, make_target
from mmuniformer.errors import UserError, explain_write_errors, refuse_existing
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.files import whole_file
from mmuniformer.version import __version__


@dataclass(frozen=True)
class Options:
    """The options of ``mmuniformer export``: see its help."""

    format: str = 'onnx'
    backbone_only: bool = False
    shape: tuple[int, int] | None = None
    frames: int | None = None
    static: int | None = None
    check: bool = True
    tolerance: float = 1e-3
    out: Path | None = None
    force: bool = False


def export(
    cfg: Config, checkpoint: str | None, options: Options, console: Console | None = None
) -> Path:
    """Export a config's model, and return the file that was written.

    The weights are those of a checkpoint (path or URL), or random. Comparisons are printed.

    Raises:
        UserError: An option does not fit, the model or checkpoint cannot be used, or the file's
            outputs differ from PyTorch's.
    """
    console = console or Console()
    detects = is_detector(cfg, options.backbone_only)
    dynamic = not (options.static or detects)
    form = files.FORMATS[options.format]
    if detects and (not form.detectors or (options.static or 1) > 1):
        raise UserError(
            'a whole detector is exported as ONNX for one image of one size: leave out '
            '--format and --static, or add --backbone-only'
        )
    files.check_libraries(form.libraries)
    file = output_file(cfg, options)
    size = options.shape or test_image_size(cfg)
    if dynamic and min(size) < files.MIN_DYNAMIC_SIDE:
        raise UserError(
            f'--shape {size[0]} {size[1]}: a dynamic file takes sides from '
            f'{files.MIN_DYNAMIC_SIDE} up; add --static 1 for a smaller one'
        )
    with quiet():
        model = build_model(cfg, checkpoint)
    target = make_target(cfg, model, options.backbone_only, size)
    frames = clip_length(cfg, target.dims, options.frames)
    if frames and dynamic and frames < files.MIN_DYNAMIC_FRAMES:
        raise UserError(
            f'--frames {frames}: a dynamic file takes clips of {files.MIN_DYNAMIC_FRAMES} frames '
            'and more; add --static 1 for shorter ones'
        )
    example = (options.static or 1, *[frames] * bool(frames), *size)
    with quiet():
        metadata = metadata_of(cfg, model, size) | ({'frames': frames} if frames else {})
    if dynamic and getattr(find_backbone(model)[1], 'stage3_attn', None) == 'auto':
        raise UserError(
            "stage3_attn='auto' chooses the layout by the image size, which a file with dynamic "
            'sizes cannot: add --cfg-options model.backbone.stage3_attn=hybrid, or --static 1'
        )
    if checkpoint is None:
        console.print('no CHECKPOINT: the weights are random', style='yellow')
    if options.check and detects:
        images = comparison.images_to_compare(cfg, model, size)
    with explain_write_errors(file), whole_file(file) as unchecked:
        with console.status(f'writing {file} ...'):
            program = files.trace(target, example, dynamic)
            form.write(program, target.output_names, unchecked, metadata)
        if options.check:
            with console.status('comparing it with PyTorch ...'):
                run, tolerance = form.run(unchecked), options.tolerance
                if detects:
                    rows = comparison.compare_detections(run, target.expected, images, tolerance)
                else:
                    shapes = comparison.shapes_to_compare(example, dynamic)
                    rows = comparison.compare_outputs(run, target, shapes, tolerance)
            console.print(comparison.comparison_table(rows, tolerance))
            if any(row['result'] is False for row in rows):
                raise UserError(
                    f'{file} was not written: its outputs differ from those of PyTorch by more '
                    f'than --tolerance {tolerance:g}'
                )
    return file


def clip_length(cfg: Config, dims: int, frames: int | None) -> int | None:
    """Return the frames of the example clip, the config's by default; None for images."""
    if dims == 2:
        if frames:
            raise UserError(f'--frames {frames}: the network takes images, leave the option out')
        return None
    frames = frames or (clip_views(cfg) or (None,))[0]
    if frames is None:
        raise UserError('the config does not state the length of clips: give --frames T')
    return frames


def output_file(cfg: Config, options: Options) -> Path:
    """Return the file to write; create its folder."""
    suffix = files.FORMATS[options.format].suffix
    stem = Path(cfg.filename).stem
    name = f'{stem}{"_backbone" * options.backbone_only}{suffix}'
    file = options.out or Path('work_dirs') / stem / name
    if file.suffix != suffix:
        raise UserError(f'--out {file}: the suffix of --format {options.format} is {suffix}')
    refuse_existing(file, options.force)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {file}: {error.strerror}; name another folder') from error
    return file


def metadata_of(cfg: Config, model: nn.Module, size: tuple[int, int]) -> dict[str, Any]:
    """Return what a user of the file has to know: how to prepare input, names of classes."""
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
        'channels': channel_order(cfg),
        'names': list(names),
    }
