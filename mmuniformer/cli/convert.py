"""``mmuniformer convert``."""

from __future__ import annotations

from pathlib import Path

import click

from mmuniformer.cli.loading import loading


@click.command('convert')
@click.argument('source')
@click.argument('target', type=click.Path(path_type=Path))
@click.option(
    '--to',
    type=click.Choice(['current', 'released', 'mmpretrain', 'mmaction']),
    default='current',
    show_default=True,
    help='Layout to write: current is for mmengine, released is that of the authors, the others '
    'are whole classifiers of these frameworks.',
)
@click.option('--head-dim', type=click.IntRange(1), help='Record the head_dim of SOURCE.')
@click.option(
    '--labels',
    nargs=2,
    metavar='FROM TO',
    help='Permute classes by name, from one list to another: k400-authors, k400 (alphabetical), or '
    'text files with a name a line.',
)
@click.option('--force', is_flag=True, help='Replace TARGET if it exists.')
def command(
    source: str,
    target: Path,
    to: str,
    head_dim: int | None,
    labels: tuple[str, str] | None,
    force: bool,
) -> None:
    """Rewrite a released checkpoint for mmengine, or a checkpoint to the released layout.

    SOURCE is a path or URL, TARGET the file to write.

    \b
    mmuniformer convert uniformer_small_in1k.pth plain.pth
    mmuniformer convert plain.pth released.pth --to released
    mmuniformer convert uniformer_small_k400_16x4.pth k400.pth --to mmaction \
        --labels k400-authors k400
    """  # noqa: D301
    with loading():
        from mmuniformer.apis.convert import convert
    for subject, text in convert(source, target, to, head_dim, force, labels).items():
        click.echo(f'{subject:16} {text}')
