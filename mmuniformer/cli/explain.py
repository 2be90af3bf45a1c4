"""``mmuniformer explain``."""

from __future__ import annotations

from pathlib import Path

import click

from mmuniformer.apis.config import load_config
from mmuniformer.apis.explain import (
    LAYOUTS,
    build_backbone,
    draw,
    explain_hourglass,
    explain_layouts,
    view,
)
from mmuniformer.apis.inference.decode import read_image
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer
from mmuniformer.models.uniformer import STAGE3_LAYOUTS
from mmuniformer.visualization.figures import check_target, save_figure


@click.command('explain', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint')
@click.argument('image', type=click.Path(path_type=Path))
@click.option(
    '--query', type=float, nargs=2, metavar='X Y', help='Pixel of IMAGE.  [default: its centre]'
)
@click.option(
    '--layouts',
    help=f'Layouts of stage 3 to compare, of {", ".join(STAGE3_LAYOUTS)}.  '
    f'[default: {",".join(LAYOUTS)}]',
)
@click.option('--window-size', type=click.IntRange(1), help='Window side in stage-3 tokens.')
@click.option(
    '--out',
    type=click.Path(path_type=Path),
    default='explain.png',
    show_default=True,
    help='Picture to write.',
)
@click.option('--force', is_flag=True, help='Replace the picture.')
@cfg_options
def command(
    config: str,
    checkpoint: str,
    image: Path,
    query: tuple[float, float] | None,
    layouts: str | None,
    window_size: int | None,
    out: Path,
    force: bool,
    cfg_options: dict,
) -> None:
    """Draw what the backbone of CONFIG with the weights of CHECKPOINT looks at on IMAGE.

    UniFormer: what the token at the query attends to in stages 3 and 4, in each layout.
    UniFormerLight: which patches are kept and the class token's score. Both: features by stage.
    """
    check_target(out, force)
    cfg = load_config(config, cfg_options)
    chosen = tuple(name.strip() for name in layouts.split(',')) if layouts else LAYOUTS
    unknown = [name for name in chosen if name not in STAGE3_LAYOUTS]
    if unknown:
        raise UserError(f'--layouts {unknown[0]}: choose of {", ".join(STAGE3_LAYOUTS)}')
    shown = view(cfg, read_image(image), query)
    backbone = build_backbone(cfg, checkpoint)
    if isinstance(backbone, UniFormer):
        rows = explain_layouts(backbone, shown, chosen, window_size)
    elif query or layouts or window_size:
        raise UserError(
            '--query, --layouts and --window-size are for UniFormer: an hourglass network has '
            'one layout, and its class token is what looks'
        )
    else:
        rows = explain_hourglass(backbone, shown)
    title = f'{Path(config).stem}, {Path(checkpoint).name}, {image.name}'
    save_figure(draw(shown, rows, title), out)
    click.echo(f'{out}: {", ".join(name for name, _ in rows)}')
