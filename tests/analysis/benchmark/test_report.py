"""The arithmetic and the files of the benchmark."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch
from rich.console import Console

from mmuniformer.analysis.benchmark.cases import Settings
from mmuniformer.analysis.benchmark.report import (
    Row,
    caption,
    compare_with_plain,
    make_record,
    show,
    table_of,
)
from mmuniformer.analysis.benchmark.run import set_times

PLAIN = Row(
    profile='plain', layout='h14', size='2 x 100 x 200', ms=400.0, spread=0.1, peak_mb=800.0,
    gflops=3.0, params_m=21.0, difference=0.0,
)  # fmt: skip
FUSED = replace(PLAIN, profile='fused', ms=320.0, spread=0.25, peak_mb=200.0, difference=4e-6)
SETTINGS = Settings('backbone', 'small', None, ((100, 200),), 2, 5, 'inference', 'cpu')


def lines_of(*rows):
    return table_of([asdict(row) for row in rows])


def compared(*rows):
    rows = [replace(row) for row in rows]
    compare_with_plain(rows)
    return rows


def test_times_of_a_row():
    row = Row('fused', gflops=3.0)
    set_times(row, [0.38, 0.32, 0.3], SETTINGS, (100, 200), rate=6e10)
    assert row.ms == 320
    assert round(row.spread, 6) == 0.25
    assert row.images_per_second == 6.25
    assert row.ns_per_pixel == 8000
    # Two images of 3 G multiply-adds take 0.1 s at 60 G a second.
    assert round(row.times_floor, 6) == 3.2


def test_clips_are_counted_as_such():
    row = Row('fused', gflops=3.0)
    set_times(row, [0.32], SETTINGS, (4, 100, 200), rate=6e10)
    assert (row.images_per_second, row.clips_per_second) == (None, 6.25)
    assert row.ns_per_pixel == 2000


@pytest.mark.parametrize(('task', 'floor'), [('backbone', 16 / 15), ('det', None)])
def test_floor_of_training(task, floor):
    row = Row('fused', gflops=3.0)
    settings = replace(SETTINGS, task=task, mode='training')
    set_times(row, [0.32], settings, (100, 200), rate=6e10)
    assert row.times_floor == (floor and pytest.approx(floor))


def test_plain_of_the_same_layout_and_size_is_the_reference():
    rows = compared(
        PLAIN,
        replace(PLAIN, size='2 x 200 x 200', ms=960.0),
        replace(FUSED, size='2 x 200 x 200'),
        FUSED,
        replace(FUSED, layout='w14'),
    )
    assert [row.speedup for row in rows] == [1, 1, 3, 1.25, None]
    assert [row.of_plain for row in rows] == [1, 1, 0.25, 0.25, None]


def test_memory_that_did_not_grow_has_no_ratio():
    plain, fused = compared(replace(PLAIN, peak_mb=0.0), FUSED)
    assert (plain.of_plain, fused.of_plain) == (None, None)
    assert fused.speedup == 1.25
    assert compared(PLAIN, replace(FUSED, peak_mb=0.0))[1].of_plain == 0


def test_without_repeats_there_are_no_times():
    plain, fused = compared(replace(PLAIN, ms=None), replace(FUSED, ms=None))
    assert fused.speedup is None
    assert fused.of_plain == 0.25
    assert 'ms' not in lines_of(plain, fused)[0]


def test_tables_leave_out_columns_that_say_nothing():
    header, *lines = lines_of(*compared(PLAIN, FUSED))
    assert header == [
        'profile', 'ms', 'spread', 'speed-up', 'peak MB', 'of plain', 'GFLOPs', 'difference',
    ]  # fmt: skip
    assert lines[1] == ['fused', '320.0', '25%', '1.25', '200', '0.25', '3', '4e-06']
    other = replace(FUSED, size='2 x 200 x 200', layout='w14', ns_per_pixel=3.0)
    header, *_ = lines_of(replace(FUSED, ns_per_pixel=3.0), other)
    assert header[:3] == ['profile', 'layout', 'size']
    assert 'ns/pixel' in header


def test_what_is_not_installed_has_a_line():
    baseline = replace(FUSED, profile='Swin-T', layout=None, params_m=28.0, published='42.7 box AP')
    absent = Row('ConvNeXt-T', published='not installed: mmpretrain')
    header, *lines = lines_of(FUSED, baseline, absent)
    shown = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row['params (M)'] for row in shown] == ['21.00', '28.00', '-']
    assert [row['published'] for row in shown] == ['-', '42.7 box AP', 'not installed: mmpretrain']


RATES = {'float32': {'2 x 2 matrices': 2e10, 'slow convolution': 1e10, 'convolution': 4e10}}


def test_record_holds_the_rows():
    rows = [PLAIN, replace(FUSED, ms=1 / 3), Row('other', published='no')]
    record = json.loads(json.dumps(make_record(rows, SETTINGS, RATES)))
    assert record['settings']['shapes'] == [[100, 200]]
    assert record['rates'] == RATES
    assert record['machine']['versions']['torch']
    assert [Row(**row) for row in record['rows']] == rows


def test_caption_says_how_it_was_measured():
    record = make_record([PLAIN, FUSED], SETTINGS, RATES)
    head, _, times = caption(record).partition(' Times: ')
    assert head.startswith(record['time'][:10])
    assert head.endswith(f'torch {torch.__version__}.')
    paces = 'float32 20 (2 x 2 matrices), 40 (convolution)'
    assert times == f'median of 5 runs. G multiply-adds per second: {paces}.'
    once = make_record([PLAIN], replace(SETTINGS, repeats=1), RATES)
    assert ' Times: one run. ' in caption(once)
    untimed = make_record([PLAIN], replace(SETTINGS, repeats=0), {})
    assert caption(untimed) == head


def test_title_says_what_was_measured(capsys):
    show(make_record([PLAIN, FUSED], SETTINGS, RATES), Console(width=200))
    title = 'small, h14: 21.00M parameters, inference at 2 x 100 x 200'
    # The title wraps at the width of the table.
    assert ' '.join(capsys.readouterr().out.split()).startswith(title)
