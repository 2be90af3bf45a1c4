"""``mmuniformer complexity``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options

if TYPE_CHECKING:
    from rich.table import Table

    from mmuniformer.analysis.complexity import Part


@click.command('complexity', cls=ConfigCommand)
@click.argument('config')
@click.option(
    '--shape',
    type=click.IntRange(1),
    nargs=2,
    metavar='H W',
    help="Image height and width.  [default: the task's published size]",
)
@click.option('--json', 'as_json', is_flag=True, help='Print JSON instead of a table.')
@cfg_options
def command(config: str, shape: tuple[int, int] | None, as_json: bool, cfg_options: dict) -> None:
    """Count parameters and FLOPs by component and stage, as published.

    CONFIG is a path, or the name of a shipped config. FLOPs are multiply-adds, attention included,
    softmax and norms left out.
    """
    with loading():
        from rich.console import Console

        from mmuniformer.analysis.complexity import complexity, find_published, published_shape
        from mmuniformer.analysis.layouts import LAYOUT_OPTIONS
        from mmuniformer.apis.config import clip_views, find_config, load_config
    file = find_config(config)
    cfg = load_config(file, cfg_options)
    total = complexity(cfg, shape)
    shape = shape or published_shape(cfg)
    published = None
    # A published figure is of the config as it is, in any layout.
    if set(cfg_options) <= LAYOUT_OPTIONS:
        published = find_published(cfg, shape, total.flops)
    if as_json:
        clips = dict(zip(('frames', 'views'), clip_views(cfg) or (), strict=False))
        result = {'config': file.stem, 'shape': shape, **clips, **dataclasses.asdict(total)}
        del result['name']
        click.echo(json.dumps(result | ({'published': published} if published else {}), indent=2))
        return
    console = Console()
    size = f'{shape[0]} x {shape[1]}'
    if clips := clip_views(cfg):
        size = f'{clips[0]} x {size}, views: {clips[1]}'
    console.print(f'{file.stem} at {size}', style='bold', soft_wrap=True)
    console.print(table_of(total))
    if published:
        text = f'FLOPs: {published["flops"]:g} G published: {published["verdict"]}'
        console.print(text, soft_wrap=True)


def table_of(total: Part) -> Table:
    """Lay the cost out by component and stage."""
    from rich.table import Table

    table = Table('component')
    for header in ('params (M)', 'FLOPs (G)', 'share'):
        table.add_column(header, justify='right')

    def add(part: Part, depth: int) -> None:
        name, share = '  ' * depth + part.name, f'{part.flops / total.flops:.1%}'
        figures = f'{part.params / 1e6:.3f}', f'{part.flops / 1e9:.3f}', share
        table.add_row(name, *figures, style='dim' if depth > 1 else None)
        for child in part.parts:
            add(child, depth + 1)

    for part in total.parts:
        add(part, 0)
    table.add_section()
    add(dataclasses.replace(total, parts=()), 0)
    return table
