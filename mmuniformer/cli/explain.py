"""``mmuniformer explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options, max_pixels
from mmuniformer.errors import UserError, refuse_existing

FORMATS = ('.png', '.jpg')


@click.command('explain', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint')
@click.argument('image', type=click.Path(path_type=Path))
@click.option(
    '--query', type=float, nargs=2, metavar='X Y',
    help='Pixel of IMAGE; of a clip as the test pipeline resizes and crops it.  [default: its '
    'center]',
)  # fmt: skip
@click.option(
    '--frame', type=int, metavar='T',
    help='Frame of the clip that the query is in, from 0.  [default: the middle]',
)  # fmt: skip
@click.option(
    '--out', type=click.Path(path_type=Path), metavar='FILE', default='explain.png',
    show_default=True, help=f'File to write ({", ".join(FORMATS)}).',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace an existing file.')
@max_pixels
@cfg_options
def command(
    config: str, checkpoint: str, image: Path, query: tuple[float, float] | None,
    frame: int | None, out: Path, force: bool, max_pixels: int, cfg_options: dict[str, Any],
) -> None:  # fmt: skip
    """Draw what the backbone of CONFIG with the weights of CHECKPOINT attends to on IMAGE.

    CONFIG is a path, or the name of a shipped config; CHECKPOINT is a path or URL.

    UniFormer: the attention of the token at the query in stages 3 and 4, global, in windows and
    hybrid. UniFormerLight: the kept patches and the score of the class token.

    Of networks for clips, IMAGE is a video or a folder of frames: the attention in space and time
    is drawn frame by frame, a line for each block. A token stands for two frames.
    """
    if out.suffix.lower() not in FORMATS:
        raise UserError(f'--out {out}: use one of the suffixes {", ".join(FORMATS)}')
    refuse_existing(out, force)
    with loading():
        import cv2

        from mmuniformer.apis.config import load_config
        from mmuniformer.apis.explain import explain
        from mmuniformer.models.weights.files import whole_file
    cfg = load_config(config, cfg_options)
    sheet = explain(cfg, checkpoint, image, query, frame, max_pixels)
    try:
        with whole_file(out) as part:
            part.write_bytes(cv2.imencode(out.suffix, sheet)[1].tobytes())
    except OSError as error:
        raise UserError(f'--out {out} cannot be written: {error}') from error
    click.echo(f'wrote {out}')
