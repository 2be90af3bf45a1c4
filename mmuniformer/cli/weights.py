"""``mmuniformer weights list|fetch|verify``."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import click

from mmuniformer.cli.loading import loading


@click.group()
def command() -> None:
    """List, fetch and verify released weights."""


@command.command('list')
@click.argument('pattern', default='*')
def list_files(pattern: str) -> None:
    """List released files whose name, or what they belong to, fits PATTERN.

    \b
    mmuniformer weights list '*small*'
    """  # noqa: D301
    with loading():
        from mmuniformer.models.weights import catalog
    files = [
        file
        for file in catalog.RELEASED_FILES
        if any(fnmatch(name, pattern) for name in (file.name, *file.rows))
    ]
    for file in files:
        size = f'{file.size / 1e6:.0f} MB, ' if file.size else ''
        click.secho(file.name, bold=True)
        click.echo(f'  {file.kind}, {size}head_dim {file.head_dim}, license {file.license}')
        click.echo('\n'.join(f'  {text}' for text in (*file.rows, *file.homes)))
    if not files:
        click.echo('no released file fits')


@command.command('fetch')
@click.argument('name')
@click.option(
    '--out', type=click.Path(file_okay=False, path_type=Path), metavar='DIR',
    help='Copy it here.  [default: leave it in the cache]',
)  # fmt: skip
@click.option('--force', is_flag=True, help='Replace an existing file.')
def fetch(name: str, out: Path | None, force: bool) -> None:
    """Download a released file, check it, and print where it is.

    NAME is a file's name, or what it is the weights of: a config or a backbone.

    \b
    mmuniformer weights fetch uniformer_small
    """  # noqa: D301
    with loading():
        from mmuniformer.apis.weights import fetch_released
    click.echo(fetch_released(name, out, force))


@command.command('verify')
@click.argument('file')
def verify_file(file: str) -> None:
    """Compare FILE with what was published, and read it without running code in it."""
    with loading():
        from mmuniformer.apis.weights import verify
    for subject, text in verify(file).items():
        click.echo(f'{subject:12} {text}')
