"""Rows of a benchmark, and what is made of them: a table and JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.cases import Settings


def figure(header: str, form: str = '{}', differing: str | None = None) -> Any:
    """Declare a figure of a row; tables leave it out where all rows agree in ``differing``."""
    metadata = {'header': header, 'form': form, 'differing': differing}
    return dataclasses.field(default=None, metadata=metadata)


@dataclasses.dataclass
class Row:
    """What was measured of one network at one size; None where there is no figure."""

    profile: str = figure('profile')  # or what a baseline is called
    layout: str | None = figure('layout', '{}', 'layout')
    size: str | None = figure('size', '{}', 'size')  # batch size, frames, height and width
    mIoU: float | None = figure('mIoU', '{:.2f}')
    mAcc: float | None = figure('mAcc', '{:.2f}')
    aAcc: float | None = figure('aAcc', '{:.2f}')
    ms: float | None = figure('ms', '{:.1f}')  # median of the rounds
    spread: float | None = figure('spread', '{:.0%}')  # slowest less fastest, over the median
    data_ms: float | None = figure('data ms', '{:.1f}')  # of a training loop: waiting for a batch
    data_share: float | None = figure('data', '{:.1%}')  # that over the time of all steps
    times_backward: float | None = figure('x backward', '{:.2f}')  # over forward and backward
    images_per_second: float | None = figure('img/s', '{:.2f}')
    clips_per_second: float | None = figure('clips/s', '{:.2f}')
    ns_per_pixel: float | None = figure('ns/pixel', '{:.0f}', 'size')
    speedup: float | None = figure('speed-up', '{:.2f}')  # time of plain over this one's
    # Over the time that the multiply-adds take at the pace of the fastest product.
    times_floor: float | None = figure('x floor', '{:.2f}')
    of_rate: float | None = figure('of rate', '{:.0%}')
    dense_ms: float | None = figure('dense', '{:.0f}')
    attention_ms: float | None = figure('attention', '{:.0f}')
    depthwise_ms: float | None = figure('depthwise', '{:.0f}')
    gelu_ms: float | None = figure('GELU', '{:.0f}')
    norms_ms: float | None = figure('norms', '{:.0f}')
    rest_ms: float | None = figure('rest', '{:.0f}')
    peak_mb: float | None = figure('peak MB', '{:.0f}')  # growth during the call, in MiB
    of_plain: float | None = figure('of plain', '{:.2f}')  # that growth over plain's
    whole_mb: float | None = figure('whole MB', '{:.0f}')  # peak of the whole process
    gflops: float | None = figure('GFLOPs', '{:.4g}')  # multiply-adds of one image or clip forward
    params_m: float | None = figure('params (M)', '{:.2f}', 'params_m')
    difference: float | None = figure('difference', '{:.0e}')  # see run.difference
    published: str | None = figure('published')  # accuracy that others state


def ratio(value: float | None, reference: float | None) -> float | None:
    """Return a quotient; None where a figure is missing or the reference is 0."""
    return None if value is None or not reference else value / reference


def compare_with_plain(rows: Sequence[Row]) -> None:
    """Set what rows are relative to the plain profile in the same layout and size."""
    plain = {(row.layout, row.size): row for row in rows if row.profile == 'plain'}
    for row in rows:
        reference = plain.get((row.layout, row.size))
        if reference is not None:
            row.speedup = ratio(reference.ms, row.ms)
            row.of_plain = ratio(row.peak_mb, reference.peak_mb)


def make_record(rows: list[Row], settings: Settings, rates: dict[str, Any]) -> dict[str, Any]:
    """Put rows, settings, rates (see ``measure_cases``) and machine together."""
    return {
        'time': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'settings': dataclasses.asdict(settings),
        'machine': measure.machine(torch.device(settings.device)),
        'rates': rates,
        'rows': [dataclasses.asdict(row) for row in rows],
    }


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the header and lines of a table of a record's rows, without empty columns."""
    columns = []
    for field in dataclasses.fields(Row):
        values = [row.get(field.name) for row in rows]
        if not field.metadata or set(values) == {None}:
            continue
        header, form, differing = field.metadata.values()
        if differing is None or len({row.get(differing) for row in rows} - {None}) > 1:
            columns.append([header, *('-' if v is None else form.format(v) for v in values)])
    return [list(line) for line in zip(*columns, strict=True)]


def caption(record: Mapping[str, Any]) -> str:
    """Return when and on what a table's figures were measured."""
    machine, repeats = record['machine'], record['settings']['repeats']
    text = (
        f'{record["time"][:10]}, {machine["device"]}, {machine["threads"]} threads, '
        f'torch {machine["versions"]["torch"]}.'
    )
    if not repeats:
        return text
    runs = 'one run' if repeats == 1 else f'median of {repeats} runs'
    text += f' Times: {runs}.'
    if not record['rates']:
        return text
    paces = []
    for dtype, rates in record['rates'].items():
        (square, pace), *others = rates.items()
        fastest = max(others, key=lambda item: item[1])
        shown = ', '.join(f'{rate / 1e9:.0f} ({name})' for name, rate in ((square, pace), fastest))
        paces.append(f'{dtype} {shown}')
    return f'{text} G multiply-adds per second: {"; ".join(paces)}.'


def show(record: Mapping[str, Any], console: Console) -> None:
    """Print a record as a table."""
    settings, rows = record['settings'], record['rows']
    layouts, sizes = (
        ', '.join(dict.fromkeys(row[name] for row in rows if row[name]))
        for name in ('layout', 'size')
    )
    table = Table(
        title=f'{settings["config"]}, {layouts}: {rows[0]["params_m"]:.2f}M parameters, '
        f'{settings["mode"]} at {sizes}',
        caption=caption(record), caption_justify='left',
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    header, *lines = table_of(rows)
    for column, name in enumerate(header):
        table.add_column(name, justify='right' if column else 'left', no_wrap=True)
    for line in lines:
        table.add_row(*line)
    # Lines that the terminal breaks can still be read, columns that are cut cannot.
    console.width = 1000
    console.print(table)
