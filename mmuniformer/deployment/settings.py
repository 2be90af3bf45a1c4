"""What an export needs to know beside the model: image size, metadata, where to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.inference.network import config_meta
from mmuniformer.deployment.files import SUFFIXES
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone
from mmuniformer.version import __version__


def metadata_of(cfg: Config, model: nn.Module, shape: tuple[int, int]) -> dict[str, Any]:
    """Return what a user of the file needs to know: how images are prepared, what classes mean."""
    images = cfg.model.get('data_preprocessor', {})
    known = {}
    if 'test_dataloader' in cfg:
        with scope_of(cfg):
            known = {**config_meta(cfg), **getattr(model, 'dataset_meta', {})}
    names = known.get('classes') or dict(known.get('keypoint_id2name', {})).values()
    return {
        'mmuniformer': __version__,
        'config': Path(cfg.filename).stem,
        'size': list(shape),
        'mean': list(images.get('mean') or (0.0, 0.0, 0.0)),
        'std': list(images.get('std') or (1.0, 1.0, 1.0)),
        'channels': 'RGB' if images.get('bgr_to_rgb') else 'BGR',
        'names': list(names),
    }


def output_files(
    out: Path | None, cfg: Config, format: str, backbone_only: bool, int8: bool, force: bool
) -> list[Path]:
    """Return the file to write and, if asked for, its 8-bit form; their folder is made.

    Raises:
        UserError: One is there and ``force`` is not given, or the folder can't be made.
    """
    stem = Path(cfg.filename).stem
    name = f'{stem}{"_backbone" * backbone_only}{SUFFIXES[format]}'
    file = out or Path('work_dirs') / stem / name
    if file.suffix != SUFFIXES[format]:
        raise UserError(f'--out {file}: a file of {format} ends in {SUFFIXES[format]}')
    written = [file, *[file.with_stem(f'{file.stem}-int8')] * int8]
    for each in written:
        if each.exists() and not force:
            raise UserError(f'{each} is there already: name another file with --out, or --force')
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {file}: {error.strerror}; name another folder') from error
    return written


def refuse_auto(network: nn.Module) -> None:
    """Refuse dynamic sizes for a layout that is chosen by the size.

    Raises:
        UserError: The backbone's layout is 'auto'.
    """
    if getattr(find_backbone(network)[1], 'stage3_attn', None) == 'auto':
        raise UserError(
            "stage3_attn='auto' chooses by the image's size, which a file with dynamic sizes can "
            'not: choose one by --cfg-options model.backbone.stage3_attn=hybrid, or --static'
        )
