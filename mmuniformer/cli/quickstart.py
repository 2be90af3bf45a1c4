"""``mmuniformer quickstart``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from mmuniformer.apis.quickstart import EXAMPLES, Result, quickstart


def result_table(results: Sequence[Result]) -> Table:
    """Lay results out with a row for each metric."""
    table = Table(title='validation images of the toy data')
    for name in ('task', 'config', 'metric', 'value', 'train s', 'test s'):
        numbers = name in ('value', 'train s', 'test s')
        table.add_column(name, overflow='fold', justify='right' if numbers else 'left')
    for result in results:
        seconds = [f'{result.train_seconds:.0f}', f'{result.test_seconds:.0f}']
        for metric, value in result.metrics.items():
            stem = Path(result.config).stem
            table.add_row(result.task, stem, metric, f'{value:.3f}', *seconds)
    return table


@click.command('quickstart')
@click.option(
    '--task', 'tasks', multiple=True, type=click.Choice(list(EXAMPLES)),
    help='Run this task only; may be repeated.  [default: all]',
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
    results = quickstart(
        tasks or EXAMPLES, out, say=lambda text: click.secho(f'\n{text}', bold=True)
    )
    Console().print(result_table(results))
    for result in results:
        click.echo('\n  '.join([f'{result.task}: {result.checkpoint}', *result.drawings]))
    click.echo(f'wrote {out / "contact_sheet.png"} and {out / "results.json"}')
