"""Rows of a benchmark, and what is made of them: a table, JSON and CSV."""

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
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.cases import Settings
from mmuniformer.errors import UserError, refuse_existing

REFERENCE = 'plain'
WIDE = Console(width=1000)


def figure(header: str, form: str = '{}', differing: str | None = None) -> Any:
    """Declare a figure of a row.

    Args:
        header: Of its column in tables.
        form: Format in tables.
        differing: Tables leave the column out where all rows have the same figure of this name.
    """
    metadata = {'header': header, 'form': form, 'differing': differing}
    return dataclasses.field(default=None, metadata=metadata)


@dataclasses.dataclass
class Row:
    """What was measured of one network at one size; None where there is no figure.

    Attributes:
        profile: Or what a baseline is called.
        size: Batch size, height and width.
        ms: Median of the rounds.
        spread: Slowest less fastest, as a share of the median.
        speedup: Time of plain over this one's.
        times_floor: Over the time that the multiply-adds take at the pace of a matrix product.
        peak_mb: Growth of memory during the call, in MiB; ``of_plain`` is its share.
        whole_mb: Peak of the whole process.
        gflops: Multiply-adds of one image forward, by the published counting.
        difference: Largest of an output to plain's, over plain's largest.
        published: Accuracy that others state.
    """

    profile: str = figure('profile')
    layout: str | None = figure('layout', '{}', 'layout')
    size: str | None = figure('size', '{}', 'size')
    mIoU: float | None = figure('mIoU', '{:.2f}')
    mAcc: float | None = figure('mAcc', '{:.2f}')
    aAcc: float | None = figure('aAcc', '{:.2f}')
    ms: float | None = figure('ms', '{:.1f}')
    fastest_ms: float | None = None
    slowest_ms: float | None = None
    spread: float | None = figure('spread', '{:.0%}')
    images_per_second: float | None = figure('img/s', '{:.2f}')
    ns_per_pixel: float | None = figure('ns/pixel', '{:.0f}', 'size')
    speedup: float | None = figure('speed-up', '{:.2f}')
    times_floor: float | None = figure('x floor', '{:.2f}')
    dense_ms: float | None = figure('dense', '{:.0f}')
    attention_ms: float | None = figure('attention', '{:.0f}')
    depthwise_ms: float | None = figure('depthwise', '{:.0f}')
    gelu_ms: float | None = figure('GELU', '{:.0f}')
    norms_ms: float | None = figure('norms', '{:.0f}')
    rest_ms: float | None = figure('rest', '{:.0f}')
    peak_mb: float | None = figure('peak MB', '{:.0f}')
    of_plain: float | None = figure('of plain', '{:.2f}')
    whole_mb: float | None = figure('whole MB', '{:.0f}')
    gflops: float | None = figure('GFLOPs', '{:.4g}')
    params_m: float | None = figure('params (M)', '{:.2f}', 'params_m')
    difference: float | None = figure('difference', '{:.0e}')
    published: str | None = figure('published')


COLUMNS = [field for field in dataclasses.fields(Row) if field.metadata]


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return a quotient; None where a figure is missing or the reference is 0."""
    return None if value is None or not reference else value / reference


def compare_with_plain(rows: Sequence[Row]) -> None:
    """Set what rows are relative to the plain profile in the same layout and size."""
    plain = {(row.layout, row.size): row for row in rows if row.profile == REFERENCE}
    for row in rows:
        reference = plain.get((row.layout, row.size))
        if reference is not None:
            row.speedup = ratio(reference.ms, row.ms)
            row.of_plain = ratio(row.peak_mb, reference.peak_mb)


def table_of(rows: Sequence[Row]) -> list[list[str]]:
    """Return a table's header and lines as texts, without columns that say nothing."""

    def known(name: str) -> set[Any]:
        return {getattr(row, name) for row in rows} - {None}

    columns = []
    for field in COLUMNS:
        header, form, differing = field.metadata.values()
        if known(field.name) and (differing is None or len(known(differing)) > 1):
            values = (getattr(row, field.name) for row in rows)
            columns.append([header, *('-' if v is None else form.format(v) for v in values)])
    return [list(line) for line in zip(*columns, strict=True)]


def make_record(
    rows: Sequence[Row], settings: Settings, rates: Mapping[str, float]
) -> dict[str, Any]:
    """Put rows, settings, rates (see ``measure_cases``) and machine together, as written."""
    return {
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': dataclasses.asdict(settings),
        'machine': measure.machine(torch.device(settings.device)),
        'rates': dict(rates),
        'rows': [
            {
                name: float(f'{value:.5g}') if isinstance(value, float) else value
                for name, value in dataclasses.asdict(row).items()
            }
            for row in rows
        ],
    }


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a record."""
    return [Row(**row) for row in record['rows']]


def caption(record: Mapping[str, Any]) -> str:
    """Return how and on what a table's figures were measured."""
    settings, machine = record['settings'], record['machine']
    rates = ', '.join(f'{rate / 1e9:.0f} G {kind}' for kind, rate in record['rates'].items())
    holder = 'a fresh process' if settings['device'].startswith('cpu') else "the GPU's allocator"
    known = {name for row in record['rows'] for name, value in row.items() if value is not None}
    sentences = {
        'profile': f'{machine["device"]}, {machine["threads"]} threads, torch '
        f'{machine["versions"]["torch"]}.',
        'ms': f'Times: median of {settings["repeats"]} in turn. Floor: multiply-adds at the pace '
        f'of a matrix product ({rates} a second).',
        'dense_ms': 'dense to rest: ms by kind of operator, of one call under the profiler.',
        'peak_mb': f'Peak memory: of {holder}, beyond what it held before the call.',
        'gflops': 'FLOPs: multiply-adds of one image forward.',
        'difference': "Difference: largest to plain's outputs, over the largest output.",
    }
    return ' '.join(text for name, text in sentences.items() if name in known)


def show(record: Mapping[str, Any], console: Console) -> None:
    """Print a record as a table."""
    settings, rows = record['settings'], rows_of(record)
    layouts = ', '.join(dict.fromkeys(row.layout for row in rows if row.layout))
    sizes = ', '.join(dict.fromkeys(row.size for row in rows if row.size))
    table = Table(
        title=f'{settings["config"]}, {layouts}: {rows[0].params_m:.2f}M parameters, '
        f'{settings["mode"]} at {sizes}',
        caption=caption(record), caption_justify='left', box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
        pad_edge=False,
    )  # fmt: skip
    header, *lines = table_of(rows)
    for column, name in enumerate(header):
        table.add_column(name, justify='right' if column else 'left', no_wrap=True)
    for line in lines:
        table.add_row(*line)
    # Lines that the terminal breaks can still be read, columns that are cut cannot.
    console.width = max(console.width, Measurement.get(WIDE, WIDE.options, table).maximum)
    console.print(table)


def write(record: Mapping[str, Any], files: tuple[Path, Path]) -> None:
    """Write a record as JSON, and its rows as CSV."""
    files[0].write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
    with files[1].open('w', newline='', encoding='utf-8') as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)])
        writer.writeheader()
        writer.writerows(record['rows'])


def output_files(out: Path, force: bool) -> tuple[Path, Path]:
    """Return the JSON and the CSV file to write, before anything is measured.

    Raises:
        UserError: One of them is there and ``force`` is off, or the folder cannot be made.
    """
    files = (out / 'benchmark.json', out / 'benchmark.csv')
    refuse_existing(files, force)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out}: {error.strerror}; name another folder') from error
    return files
