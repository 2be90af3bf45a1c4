"""``mmuniformer explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mmuniformer.apis.config import load_config
from mmuniformer.apis.explain import LAYOUTS, explain
from mmuniformer.apis.inference.decode import read_image
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError, refuse_existing
from mmuniformer.models.uniformer import STAGE3_LAYOUTS

FORMATS = ('.png', '.pdf', '.svg', '.jpg')
DPI = 120


@click.command('explain', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint')
@click.argument('image', type=click.Path(path_type=Path))
@click.option(
    '--query', type=float, nargs=2, metavar='X Y', help='Pixel of IMAGE.  [default: its center]'
)
@click.option(
    '--layouts', default='', metavar='NAME,...',
    help=f'Stage-3 layouts to compare, from {", ".join(STAGE3_LAYOUTS)}.  '
    f'[default: {",".join(LAYOUTS)}]',
)  # fmt: skip
@click.option('--window-size', type=click.IntRange(1), help='Window side in stage-3 tokens.')
@click.option(
    '--out', type=click.Path(path_type=Path), metavar='FILE', default='explain.png',
    show_default=True,
    help=f'File to write ({", ".join(FORMATS)}).',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace an existing file.')
@cfg_options
def command(
    config: str, checkpoint: str, image: Path, query: tuple[float, float] | None, layouts: str,
    window_size: int | None, out: Path, force: bool, cfg_options: dict[str, Any],
) -> None:  # fmt: skip
    """Draw what the backbone of CONFIG with the weights of CHECKPOINT attends to on IMAGE.

    CONFIG is a path, or the name of a shipped config; CHECKPOINT is a path or URL.

    UniFormer: the attention of the token at the query in stages 3 and 4, for each layout.
    UniFormerLight: the kept patches and the score of the class token. Both: features by stage.
    """
    if out.suffix.lower() not in FORMATS:
        raise UserError(f'--out {out}: use one of the suffixes {", ".join(FORMATS)}')
    refuse_existing(out, force)
    cfg = load_config(config, cfg_options)
    title = f'{Path(config).stem}, {Path(checkpoint).name}, {image.name}'
    chosen = [name.strip() for name in layouts.split(',') if name.strip()]
    figure = explain(cfg, checkpoint, read_image(image), title, query, chosen, window_size)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=DPI)
    except OSError as error:
        raise UserError(f'--out {out} cannot be written: {error}') from error
    click.echo(f'wrote {out}')
