"""``mmuniformer benchmark page``: runs the commands of a page, and writes the tables below them.

A table stands between two markers, after the block of code whose command makes it.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from mmuniformer.analysis.benchmark.report import caption, table_of
from mmuniformer.errors import UserError

BEGIN, END = '<!-- table -->', '<!-- /table -->'
PLACE = re.compile(
    rf'```bash\nmmuniformer benchmark (?P<arguments>[^`]+)\n```\n\n{BEGIN}\n(?P<table>.*?){END}',
    re.DOTALL,
)
RUN = 'from mmuniformer.cli import main; main()'


def arguments_of(place: re.Match[str]) -> list[str]:
    """Return the arguments of a place's command, line ends in it escaped as in a shell."""
    return shlex.split(place['arguments'].replace('\\\n', ' '))


def measure(arguments: list[str], out: Path) -> None:
    """Run a benchmark in a process of its own, its files in ``out``.

    Raises:
        UserError: It fails.
    """
    command = [sys.executable, '-P', '-c', RUN, 'benchmark', *arguments]
    if subprocess.run([*command, '--out', str(out), '--force']).returncode:
        raise UserError(f'`mmuniformer benchmark {shlex.join(arguments)}` failed, see above')


def markdown(record: Mapping[str, Any]) -> str:
    """Lay a record out for a page."""
    header, *lines = table_of(record['rows'])
    rules = ['---', *['---:'] * (len(header) - 1)]
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in (header, rules, *lines))
    return f'{table}\n\n{record["time"][:10]}, {caption(record)}\n'


def needs_gpu(arguments: list[str]) -> bool:
    """Tell whether a command names a GPU."""
    return any(argument.startswith('cuda') for argument in arguments)


@click.command('page')
@click.argument(
    'page', type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option('--only', default='', metavar='TEXT', help='The commands that have TEXT in them.')
@click.option('--stored', is_flag=True, help='Measure nothing: lay out the last figures again.')
@click.option(
    '--out',
    type=click.Path(path_type=Path),
    default='work_dirs/performance',
    show_default=True,
    help='Folder for the figures.',
)
def page(page: Path | None, only: str, stored: bool, out: Path) -> None:
    """Write the tables of PAGE (docs/performance.md) anew, by the commands that stand above them.

    Commands with --device cuda are left out where there is no GPU.
    """
    page = page or Path('docs/performance.md')
    text = page.read_text(encoding='utf-8')
    for place in PLACE.finditer(text):
        arguments = arguments_of(place)
        shown = shlex.join(arguments)
        if only not in shown:
            continue
        if needs_gpu(arguments) and not (stored or torch.cuda.is_available()):
            click.echo(f'left as it was, there is no GPU: {shown}')
            continue
        folder = out / re.sub(r'[^\w-]+', '_', shown)
        if not stored:
            click.echo(f'mmuniformer benchmark {shown}')
            measure(arguments, folder)
        # At once: what was measured stays where a later command fails.
        write_table(page, place['arguments'], markdown(read(folder / 'benchmark.json')))


def read(file: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: There is none.
    """
    try:
        return json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{file}: {error.strerror}; measure first, without --stored') from error


def write_table(page: Path, arguments: str, table: str) -> None:
    """Replace the table of a command on a page, which may have changed otherwise meanwhile."""
    text = page.read_text(encoding='utf-8')
    for place in PLACE.finditer(text):
        if place['arguments'] == arguments:
            start, end = place.span('table')
            page.write_text(f'{text[:start]}\n{table}\n{text[end:]}', encoding='utf-8')
            return
