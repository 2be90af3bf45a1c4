"""``mmuniformer config``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options
from mmuniformer.errors import UserError, refuse_existing


@click.command('config', cls=ConfigCommand)
@click.argument('config')
@click.option(
    '--out', type=click.Path(path_type=Path), metavar='FILE', help='Write here, not to the screen.'
)
@click.option('--force', is_flag=True, help='Replace FILE if it exists.')
@cfg_options
def command(config: str, out: Path | None, force: bool, cfg_options: dict[str, Any]) -> None:
    """Write CONFIG with all it inherits as one file to edit.

    CONFIG is a path, or the name of a shipped config. The file needs no other config and trains
    from any folder.

    \b
    mmuniformer config mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco --out my.py
    mmuniformer train my.py
    """  # noqa: D301
    with loading():
        from mmuniformer.apis.config import load_config
        from mmuniformer.apis.flatten import flatten
        from mmuniformer.models.weights.files import whole_file
    text = flatten(load_config(config, cfg_options))
    if out is None:
        click.echo(text, nl=False)
        return
    refuse_existing(out, force)
    try:
        with whole_file(out) as part:
            part.write_text(text, encoding='utf-8')
    except OSError as error:
        raise UserError(f'--out {out} cannot be written: {error}') from error
    click.echo(f'wrote {out}')
