"""``mmuniformer export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options


@click.command('export', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@click.option(
    '--format', type=click.Choice(['onnx', 'torch-export']), default='onnx', show_default=True,
    help='Format of the file.',
)  # fmt: skip
@click.option('--backbone-only', is_flag=True, help='Leave neck and heads out.')
@click.option(
    '--shape', type=click.IntRange(32), nargs=2, metavar='H W',
    help="Image height and width.  [default: the config's test size]",
)  # fmt: skip
@click.option(
    '--frames', type=click.IntRange(1), metavar='T',
    help="Frames of a recognizer's clip.  [default: the config's]",
)  # fmt: skip
@click.option(
    '--static', type=click.IntRange(1), metavar='BATCH',
    help='Fix batch, frames and image size.  [default: any batch, any size from 64 x 64, clips of '
    '3 frames and more]',
)  # fmt: skip
@click.option(
    '--check/--no-check', default=True, show_default=True,
    help='Compare the file with PyTorch, and delete it if outputs differ.',
)  # fmt: skip
@click.option(
    '--tolerance', type=click.FloatRange(0), default=1e-3, show_default=True,
    help='Largest error, relative to max(|output|, 1).',
)  # fmt: skip
@click.option(
    '--out', type=click.Path(dir_okay=False, path_type=Path), metavar='FILE',
    help='File to write.  [default: work_dirs/CONFIG/CONFIG.onnx or .pt2]',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace an existing file.')
@cfg_options
def command(
    config: str, checkpoint: str | None, cfg_options: dict[str, Any], **options: Any
) -> None:
    """Export the model of CONFIG with the weights of CHECKPOINT.

    CONFIG is a path, or the name of a shipped config; CHECKPOINT is a path or URL, without it the
    weights are random.

    The file needs neither mmuniformer nor a framework. Its input, `image` (B, 3, H, W) or `clip`
    (B, 3, T, H, W), is normalized: the metadata hold mean, std and channel order.

    Outputs of a backbone: `stage1` to `stage4`. Of a segmentor: `logits` (B, classes, H, W). Of a
    pose estimator: `heatmaps` (B, keypoints, H/4, W/4). Of a classifier or a recognizer, whose
    clips are single views: `logits` (B, classes), before the softmax. Of a Mask R-CNN, for one
    image of one size: `boxes`, `scores`, `labels` and `masks`.
    """
    with loading():
        from rich.console import Console

        from mmuniformer.apis.config import load_config
        from mmuniformer.deployment.export import Options, export
    console = Console()
    file = export(load_config(config, cfg_options), checkpoint, Options(**options), console)
    console.print(f'{file}: {file.stat().st_size / 1e6:.1f} MB', soft_wrap=True)
