"""What quickstart reads, prints and refuses; its whole run is an integration test."""

import io
import json
import os

import pytest
from rich.console import Console

from mmuniformer.errors import UserError
from mmuniformer.quickstart import TASKS, Result, call, newest_metrics, show


def write_log(folder, name, values, age):
    log = folder / name / f'{name}.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(values))
    times = log.stat().st_mtime - age
    os.utime(log, (times, times))


def test_newest_metrics_are_read_as_shares(tmp_path):
    write_log(tmp_path, 'old', {'mIoU': 10.0}, age=100)
    write_log(tmp_path, 'new', {'mIoU': 81.5, 'aAcc': 90.0}, age=50)
    write_log(tmp_path, 'training', {'loss': 1.0}, age=0)
    assert newest_metrics(tmp_path, TASKS['seg']) == {'mIoU': 0.815}


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(UserError, match='no metrics coco/bbox_mAP_50, coco/segm_mAP_50'):
        newest_metrics(tmp_path, TASKS['det'])


def test_failing_step_is_named():
    with pytest.raises(UserError, match='train det failed with status 3'):
        call('train det', 'python', '-c', 'raise SystemExit(3)')


def test_table_has_a_row_a_metric():
    results = [
        Result('det', 'configs/x.py', {'box AP50': 0.9123, 'mask AP50': 0.5}, 61.2, 3.0, 'c', []),
        Result('pose', 'configs/y.py', {'AP (OKS)': 0.75}, 50.0, 2.0, 'd', []),
    ]
    console = Console(file=io.StringIO(), width=120)
    show(results, console)
    text = console.file.getvalue()
    for cell in ('box AP50', '0.912', 'mask AP50', '0.500', 'AP (OKS)', '0.750', '61', 'x', 'y'):
        assert cell in text
