"""``mmuniformer complexity``."""

from __future__ import annotations

import dataclasses
import json

import click
from rich.console import Console

from mmuniformer.analysis.complexity import (
    LAYOUT_OPTIONS,
    complexity,
    draw_table,
    find_published,
    verdict,
)
from mmuniformer.apis.config import find_config, load_config
from mmuniformer.cli.options import ConfigCommand, cfg_options


@click.command('complexity', cls=ConfigCommand)
@click.argument('config')
@click.option(
    '--shape',
    type=click.IntRange(1),
    nargs=2,
    metavar='H W',
    help='Image height and width.  [default: what published figures of the task are at]',
)
@click.option('--json', 'as_json', is_flag=True, help='Print JSON instead of a table.')
@cfg_options
def command(config: str, shape: tuple[int, int] | None, as_json: bool, cfg_options: dict) -> None:
    """Count the parameters and FLOPs of CONFIG as published: by component and stage.

    FLOPs are multiply-adds, attention included, softmax and norms left out.
    """
    file = find_config(config)
    cfg = load_config(file, cfg_options)
    counted = complexity(cfg, shape)
    published = None
    # A published figure is of the config as it is, in any layout.
    if set(cfg_options) <= LAYOUT_OPTIONS:
        published = find_published(cfg, counted.shape)
    if as_json:
        result = {'config': file.stem, **dataclasses.asdict(counted)}
        if published:
            result['published'] = {**published._asdict(), 'verdict': verdict(counted, published)}
        click.echo(json.dumps(result, indent=2))
        return
    console = Console()
    console.print('{} at {} x {}'.format(file.stem, *counted.shape), style='bold', soft_wrap=True)
    console.print(draw_table(counted))
    if published:
        text = f'FLOPs: {published.flops:g} G published: {verdict(counted, published)}'
        console.print(text, soft_wrap=True)
