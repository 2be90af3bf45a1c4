"""Figures of a benchmark: rows, a table of them, and the files that hold them."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.cases import Settings
from mmuniformer.analysis.benchmark.operators import KINDS
from mmuniformer.analysis.benchmark.profiles import TRAINING
from mmuniformer.errors import UserError

PASSES = 3
"""A training step's multiply-adds over those of forward: backward has two products for each."""
REFERENCE = 'plain'

Cells = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one network at one size."""

    name: str
    """The profile, or what the network is called."""
    layout: str
    shape: tuple[int, int]
    batch_size: int
    mode: str
    params: int
    flops: int
    """Multiply-adds of one image forward, by the published counting."""
    memory: measure.Memory
    latency: measure.Timing | None = None
    rate: float | None = None
    """Multiply-adds a second of a matrix product in the row's type; None where they don't apply."""
    difference: tuple[float, float] | None = None
    """Largest difference of an output to the plain profile's: absolute; over the largest output."""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Scores, in percent."""
    operators: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Seconds by kind of operator."""
    published: str = ''

    @property
    def floor(self) -> float:
        """Seconds that the multiply-adds take at the pace of a matrix product."""
        passes = PASSES if self.mode == TRAINING else 1
        return passes * self.flops * self.batch_size / self.rate

    def cells(self, reference: Row | None) -> Cells:
        """Return the figures with their units in their names; None where there is none."""
        cells = {
            'profile': self.name,
            'layout': self.layout,
            'size': f'{self.batch_size} x {self.shape[0]} x {self.shape[1]}',
            **self.metrics,
        }
        if self.latency:
            seconds = self.latency.median
            pixels = self.batch_size * self.shape[0] * self.shape[1]
            cells |= {
                'latency (ms)': round(seconds * 1e3, 2),
                'fastest (ms)': round(self.latency.fastest * 1e3, 2),
                'slowest (ms)': round(self.latency.slowest * 1e3, 2),
                'spread (%)': round(self.latency.spread * 100, 1),
                'images/s': round(self.batch_size / seconds, 3),
                'ns/pixel': round(seconds * 1e9 / pixels, 1),
            }
            if self.rate:
                cells['floor (ms)'] = round(self.floor * 1e3, 2)
                cells['times the floor'] = round(seconds / self.floor, 3)
        cells |= {f'{kind} (ms)': round(t * 1e3, 2) for kind, t in self.operators.items()}
        cells |= {
            'peak memory (MB)': round(self.memory.growth / measure.MEGABYTE, 1),
            'FLOPs (G)': round(self.flops / 1e9, 3),
            'params (M)': round(self.params / 1e6, 3),
        }
        if self.memory.whole is not None:
            cells['whole process (MB)'] = round(self.memory.whole / measure.MEGABYTE, 1)
        if reference:
            cells['memory / plain'] = round(self.memory.growth / reference.memory.growth, 3)
            if self.latency:
                ratio = reference.latency.median / self.latency.median
                cells['plain / time'] = round(ratio, 3)
        if self.difference:
            cells['max difference'], cells['relative difference'] = self.difference
        return cells | {'published': self.published or None}


@dataclasses.dataclass(frozen=True)
class Absent:
    """A network that could not be measured, and why."""

    name: str
    reason: str

    def cells(self, reference: None) -> Cells:
        """Return the name and the reason."""
        return {'profile': self.name, 'published': self.reason}


def all_cells(rows: Sequence[Row | Absent]) -> list[Cells]:
    """Return every row's figures, those of one profile in terms of the plain one's."""
    plain = {
        (row.layout, row.shape): row
        for row in rows
        if isinstance(row, Row) and row.name == REFERENCE
    }
    return [
        row.cells(plain.get((row.layout, row.shape)) if isinstance(row, Row) else None)
        for row in rows
    ]


COLUMNS = (
    ('profile', 'profile', '{}', None),
    ('layout', 'layout', '{}', 'layout'),
    ('size', 'size', '{}', 'size'),
    ('mIoU', 'mIoU', '{:.2f}', None),
    ('mAcc', 'mAcc', '{:.2f}', None),
    ('aAcc', 'aAcc', '{:.2f}', None),
    ('ms', 'latency (ms)', '{:.1f}', None),
    ('spread', 'spread (%)', '{:.0f}%', None),
    ('img/s', 'images/s', '{:.2f}', None),
    ('ns/pixel', 'ns/pixel', '{:.0f}', 'size'),
    ('speed-up', 'plain / time', '{:.2f}', None),
    ('x floor', 'times the floor', '{:.2f}', None),
    *((kind, f'{kind} (ms)', '{:.0f}', None) for kind in KINDS),
    ('peak MB', 'peak memory (MB)', '{:.0f}', None),
    ('of plain', 'memory / plain', '{:.2f}', None),
    ('whole MB', 'whole process (MB)', '{:.0f}', None),
    ('GFLOPs', 'FLOPs (G)', '{:.4g}', None),
    ('params (M)', 'params (M)', '{:.2f}', 'params (M)'),
    ('difference', 'relative difference', '{:.0e}', None),
    ('published', 'published', '{}', None),
)
"""Of a table: header, name of the figure, format, and which figure has to differ among rows."""


def table_of(cells: Sequence[Cells]) -> list[list[str]]:
    """Return a table's header and lines as texts, without columns that would tell nothing."""
    columns = []
    for header, name, form, needed in COLUMNS:
        values = [row.get(name) for row in cells]
        differ = needed is None or len({row[needed] for row in cells if needed in row}) > 1
        if differ and any(value not in (None, '') for value in values):
            texts = ('-' if value in (None, '') else form.format(value) for value in values)
            columns.append([header, *texts])
    return [list(line) for line in zip(*columns, strict=True)]


def title(record: Mapping[str, Any]) -> str:
    """Tell what a table is of: from the record that is written as JSON."""
    settings, rows = record['settings'], record['rows']
    layouts = dict.fromkeys(row['layout'] for row in rows if row.get('layout'))
    sizes = dict.fromkeys(row['size'] for row in rows if 'size' in row)
    params = f'{rows[0]["params (M)"]:.2f}M parameters'
    return (
        f'{settings["config"]}, {", ".join(layouts)}: {params}, {settings["mode"]} at '
        f'{", ".join(sizes)}'
    )


def caption(record: Mapping[str, Any]) -> str:
    """Tell how and on what a table's figures were measured."""
    settings, machine = record['settings'], record['machine']
    on_cpu = torch.device(settings['device']).type == 'cpu'
    rates = ', '.join(f'{rate / 1e9:.0f} G {kind}' for kind, rate in record['rates'].items())
    parts = [f'{machine["device"]}, {machine["threads"]} threads']
    parts[0] += f', torch {machine["versions"]["torch"]}.'
    if settings['repeats']:
        parts.append(f'Times: median of {settings["repeats"]} in turn.')
        parts.append(f'Floor: multiply-adds at the pace of a matrix product ({rates} a second).')
    if settings.get('operators'):
        parts.append(
            "dense to rest: ms by kind of PyTorch's operators, of one call under the profiler."
        )
    holder = 'a fresh process' if on_cpu else "the GPU's allocator"
    parts.append(f'Peak memory: of {holder}, beyond what it held before the call.')
    parts.append('FLOPs: multiply-adds of one image forward.')
    if any('relative difference' in row for row in record['rows']):
        parts.append("Difference: largest to plain's outputs, over the largest output.")
    return ' '.join(parts)


def make_record(
    rows: Sequence[Row | Absent], settings: Settings, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Put figures, settings and machine together.

    Args:
        rows: The figures.
        settings: How they were measured.
        rates: Multiply-adds a second of a matrix product, by type.
    """
    return {
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': dataclasses.asdict(settings),
        'machine': measure.machine(torch.device(settings.device)),
        'rates': dict(rates),
        'rows': all_cells(rows),
    }


def render(record: Mapping[str, Any]) -> Table:
    """Lay a record out for the terminal."""
    table = Table(
        title=title(record), caption=caption(record), caption_justify='left', box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    header, *lines = table_of(record['rows'])
    for column, name in enumerate(header):
        table.add_column(name, justify='right' if column else 'left', no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def write(record: Mapping[str, Any], files: tuple[Path, Path]) -> None:
    """Write a record as JSON, and its rows as CSV."""
    as_json, as_csv = files
    as_json.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    rows = record['rows']
    names = dict.fromkeys(name for row in rows for name in row)
    with as_csv.open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def output_files(out: Path, force: bool) -> tuple[Path, Path]:
    """Return the JSON and the CSV file to write, before anything is measured.

    Raises:
        UserError: One of them is there and ``force`` is not given, or the folder can't be made.
    """
    files = (out / 'benchmark.json', out / 'benchmark.csv')
    for file in files:
        if file.exists() and not force:
            raise UserError(f'{file} is there already: name another folder with --out, or --force')
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}; name another folder') from error
    return files
