"""``mmuniformer quickstart``."""

from __future__ import annotations

from pathlib import Path

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import TASKS


@click.command('quickstart')
@click.option(
    '--task', 'tasks', multiple=True, type=click.Choice(TASKS),
    help='Run this task only; may be repeated.  [default: all whose framework is installed]',
)  # fmt: skip
@click.option(
    '--out', type=click.Path(file_okay=False, path_type=Path), metavar='DIR',
    default=Path('work_dirs/quickstart'), show_default=True,
    help='Folder for checkpoints, logs and drawings.',
)  # fmt: skip
def command(tasks: tuple[str, ...], out: Path) -> None:
    """Train, test and draw nano models on toy data.

    Takes minutes on two CPU cores. Writes data/toy below the current folder unless it exists.
    """
    with loading():
        from mmuniformer.apis.quickstart import installed_tasks, quickstart
    results = quickstart(
        tasks or installed_tasks(), out, say=lambda text: click.secho(f'\n{text}', bold=True)
    )
    for result in results:
        metrics = ', '.join(f'{name} {value:.3f}' for name, value in result.metrics.items())
        times = f'training {result.train_seconds:.0f} s, test {result.test_seconds:.0f} s'
        lines = [f'{result.task}: {metrics} on validation data ({times})', result.checkpoint]
        click.echo('\n  '.join([*lines, *result.drawings]))
    click.echo(f'wrote {out / "results.json"}')
