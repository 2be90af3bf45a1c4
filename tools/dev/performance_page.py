"""Run the benchmark commands of a page and write the tables below them.

A table stands between two markers, after the block of code whose command makes it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import generated
import torch

from mmuniformer.analysis.benchmark.report import caption, table_of
from mmuniformer.errors import UserError

BEGIN, END = '<!-- table -->', '<!-- /table -->'
PLACE = re.compile(
    rf'```bash\nmmuniformer benchmark (?P<arguments>[^`]+)\n```\n\n{BEGIN}\n(?P<table>.*?){END}',
    re.DOTALL,
)
RUN = 'from mmuniformer.cli import main; main()'


def measure(arguments: list[str], out: Path) -> None:
    """Run a benchmark in a process of its own, its files in ``out``.

    Raises:
        UserError: It fails.
    """
    command = [sys.executable, '-c', RUN, 'benchmark', *arguments]
    if subprocess.run([*command, '--out', str(out), '--force']).returncode:
        raise UserError(f'`mmuniformer benchmark {shlex.join(arguments)}` failed, see above')


def layout_record(file: Path) -> str:
    """Return the table of a benchmark's JSON file, with when and on what it was measured.

    Raises:
        UserError: There is no such file.
    """
    try:
        record = json.loads(file.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{file}: {error.strerror}; measure first, without --stored') from error
    header, *lines = table_of(record['rows'])
    table = generated.table(header, lines, numbers=True)
    return f'{table}\n\n{caption(record)}'


def write_table(page: Path, arguments: str, table: str) -> None:
    """Replace the table of a command on a page, which may have changed otherwise meanwhile."""
    text = page.read_text(encoding='utf-8')
    for place in PLACE.finditer(text):
        if place['arguments'] == arguments:
            start, end = place.span('table')
            page.write_text(f'{text[:start]}\n{table}\n\n{text[end:]}', encoding='utf-8')
            return


def main(arguments: Sequence[str]) -> None:
    """Measure the commands of a page and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('page', nargs='?', type=Path, default=Path('docs/performance.md'))
    parser.add_argument('--only', default='', metavar='TEXT', help='commands that contain TEXT')
    parser.add_argument('--stored', action='store_true', help='lay stored figures out again')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/performance'), help='folder for the figures'
    )
    options = parser.parse_args(arguments)
    for place in PLACE.finditer(options.page.read_text(encoding='utf-8')):
        command = shlex.split(place['arguments'].replace('\\\n', ' '))
        shown = shlex.join(command)
        if options.only not in shown:
            continue
        on_gpu = any(argument.startswith('cuda') for argument in command)
        if on_gpu and not (options.stored or torch.cuda.is_available()):
            print(f'left as it was, there is no GPU: {shown}')
            continue
        folder = options.out / re.sub(r'[^\w-]+', '_', shown)
        if not options.stored:
            print(f'mmuniformer benchmark {shown}')
            measure(command, folder)
        # At once: what was measured stays where a later command fails.
        write_table(options.page, place['arguments'], layout_record(folder / 'benchmark.json'))


if __name__ == '__main__':
    main(sys.argv[1:])
