"""The arithmetic and the files of the benchmark."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest

from mmuniformer.analysis.benchmark.cases import Settings
from mmuniformer.analysis.benchmark.measure import MEGABYTE, Memory, Timing
from mmuniformer.analysis.benchmark.report import (
    Absent,
    Row,
    all_cells,
    caption,
    make_record,
    table_of,
    title,
    write,
)

PLAIN = Row(
    name='plain',
    layout='h14',
    shape=(100, 200),
    batch_size=2,
    mode='inference',
    params=21_000_000,
    flops=3_000_000_000,
    memory=Memory(800 * MEGABYTE, 1000 * MEGABYTE),
    latency=Timing(0.4, 0.38, 0.42),
    rate=20e9,
    difference=(0.0, 0.0),
)
FUSED = replace(
    PLAIN, name='fused', memory=Memory(200 * MEGABYTE, 300 * MEGABYTE),
    latency=Timing(0.32, 0.3, 0.38), difference=(2e-5, 4e-6),
)  # fmt: skip
SETTINGS = Settings('backbone', 'small', None, ((100, 200),), 2, 5, 'inference', 'cpu')


def test_figures_of_a_row():
    cells = FUSED.cells(PLAIN)
    assert cells['size'] == '2 x 100 x 200'
    assert cells['latency (ms)'] == 320
    assert cells['spread (%)'] == 25
    assert cells['images/s'] == 6.25
    assert cells['ns/pixel'] == 8000
    assert cells['floor (ms)'] == 300
    assert cells['times the floor'] == 1.067
    assert cells['peak memory (MB)'] == 200
    assert cells['whole process (MB)'] == 300
    assert cells['memory / plain'] == 0.25
    assert cells['plain / time'] == 1.25
    assert (cells['max difference'], cells['relative difference']) == (2e-5, 4e-6)
    assert (cells['FLOPs (G)'], cells['params (M)']) == (3, 21)


def test_a_training_step_has_three_times_the_products():
    assert replace(PLAIN, mode='training').floor == pytest.approx(3 * PLAIN.floor)


def test_plain_of_the_same_layout_and_size_is_the_measure():
    larger = {'shape': (200, 200)}
    rows = [
        PLAIN,
        replace(PLAIN, **larger, latency=Timing(0.96, 0.96, 0.96)),
        replace(FUSED, **larger),
        FUSED,
        replace(FUSED, layout='w14'),
    ]
    ratios = [cells.get('plain / time') for cells in all_cells(rows)]
    assert ratios == [1, 1, 3, 1.25, None]


def test_without_repeats_there_are_no_times():
    cells = replace(FUSED, latency=None).cells(None)
    assert cells['peak memory (MB)'] == 200
    assert not {'latency (ms)', 'images/s', 'times the floor', 'plain / time'} & cells.keys()


def test_tables_leave_out_what_tells_nothing():
    header, *lines = table_of(all_cells([PLAIN, FUSED]))
    assert header == [
        'profile', 'ms', 'spread', 'img/s', 'speed-up', 'x floor', 'peak MB', 'of plain',
        'whole MB', 'GFLOPs', 'difference',
    ]  # fmt: skip
    assert lines[1] == [
        'fused', '320.0', '25%', '6.25', '1.25', '1.07', '200', '0.25', '300', '3', '4e-06',
    ]  # fmt: skip
    header, *_ = table_of(all_cells([FUSED, replace(FUSED, shape=(200, 200), layout='w14')]))
    assert header[:3] == ['profile', 'layout', 'size']
    assert 'ns/pixel' in header


def test_what_is_not_installed_has_a_line():
    rival = replace(FUSED, name='Swin-T', layout='', params=28_000_000, published='42.7 box AP')
    absent = Absent('ConvNeXt-T', 'not installed: mmpretrain')
    header, *lines = table_of(all_cells([FUSED, rival, absent]))
    shown = [dict(zip(header, line, strict=True)) for line in lines]
    assert [row['params (M)'] for row in shown] == ['21.00', '28.00', '-']
    assert [row['published'] for row in shown] == ['-', '42.7 box AP', 'not installed: mmpretrain']


def test_json_and_csv_hold_the_same_rows(tmp_path):
    files = tmp_path / 'a.json', tmp_path / 'a.csv'
    write(make_record([PLAIN, FUSED, Absent('other', 'no')], SETTINGS, {'float32': 2e10}), files)
    record = json.loads(files[0].read_text())
    assert record['settings']['shapes'] == [[100, 200]]
    assert record['rates'] == {'float32': 2e10}
    assert record['machine']['versions']['torch']
    with files[1].open() as file:
        rows = list(csv.DictReader(file))
    assert [row['profile'] for row in rows] == ['plain', 'fused', 'other']
    for row, cells in zip(rows, record['rows'], strict=True):
        assert {name: str(value) for name, value in cells.items() if value is not None} == {
            name: value for name, value in row.items() if value
        }


def test_title_and_caption_tell_how_it_was_measured():
    record = make_record([PLAIN, FUSED], SETTINGS, {'float32': 2e10})
    assert title(record) == 'small, h14: 21.00M parameters, inference at 2 x 100 x 200'
    text = caption(record)
    for part in ('median of 5', '20 G float32', 'beyond what it held', "plain's outputs"):
        assert part in text
    assert "GPU's allocator" not in text
