"""What quickstart reads, prints and refuses; its whole run is an integration test."""

import io
import json

import pytest
from rich.console import Console

from mmuniformer.cli.quickstart import TASKS, Result, call, newest_metrics, show
from mmuniformer.errors import UserError


def write_log(folder, name, content):
    log = folder / name / f'{name}.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(content))


def test_newest_metrics_are_read_as_shares(tmp_path):
    write_log(tmp_path, '20260101_100000', {'mIoU': 10.0})
    write_log(tmp_path, '20260101_120000', {'mIoU': 81.5, 'aAcc': 90.0})
    write_log(tmp_path, '20260101_130000', {'loss': 1.0})
    write_log(tmp_path, 'predictions', [{'image_id': 1}])
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
