"""What quickstart runs, reads, draws and prints; its whole run is an integration test."""

import json
import re

import pytest
from click.testing import CliRunner

from mmuniformer.apis import quickstart
from mmuniformer.apis.quickstart import EXAMPLES, call, newest_metrics
from mmuniformer.cli.quickstart import command
from mmuniformer.datasets.toy.write import write_toy_data
from mmuniformer.errors import UserError

pytestmark = pytest.mark.frameworks


def write_log(folder, name, content):
    log = folder / name / f'{name}.json'
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps(content))


def test_newest_metrics_are_read_as_shares(tmp_path):
    write_log(tmp_path, '20260101_100000', {'mIoU': 10.0})
    write_log(tmp_path, '20260101_120000', {'mIoU': 81.5, 'aAcc': 90.0})
    write_log(tmp_path, '20260101_130000', {'loss': 1.0})
    write_log(tmp_path, 'predictions', [{'image_id': 1}])
    assert newest_metrics(tmp_path, EXAMPLES['seg']) == {'mIoU': 0.815}


def test_missing_metrics_are_named(tmp_path):
    with pytest.raises(UserError, match='no log with coco/bbox_mAP_50, coco/segm_mAP_50'):
        newest_metrics(tmp_path, EXAMPLES['det'])


def test_failing_command_is_shown_and_named(capfd):
    said = []
    with pytest.raises(UserError, match='mmuniformer train failed with status 1'):
        call(said.append, 'train', 'no-such-config')
    assert said == ['$ mmuniformer train no-such-config']
    assert 'no-such-config' in capfd.readouterr().err


def test_command_prints_and_records_results(tmp_path, monkeypatch):
    """With a stand-in for what the commands do."""

    def run(say, name, *arguments):
        say(f'$ {name}')
        if name == 'predict':
            (work_dir / 'predictions' / 'vis').mkdir(parents=True)
            (work_dir / 'predictions' / 'vis' / '1.jpg').touch()
            (work_dir / 'predictions' / 'predictions.json').write_text('[]')
        elif name == 'train':
            work_dir.mkdir(parents=True)
            (work_dir / 'last_checkpoint').write_text('some/epoch_12.pth')
        else:
            write_log(
                work_dir, '20260101_100000', {'coco/bbox_mAP_50': 0.91, 'coco/segm_mAP_50': 0.5}
            )
        return 61.2

    monkeypatch.chdir(tmp_path)
    work_dir = tmp_path / 'out' / 'det'
    monkeypatch.setattr(quickstart, 'call', run)
    write_toy_data(quickstart.DATA, train_images=1, val_images=1)
    monkeypatch.setattr(
        quickstart, 'write_toy_data', lambda out: write_toy_data(out, train_images=1, val_images=1)
    )
    result = CliRunner().invoke(command, ['--task', 'det', '--out', 'out'], catch_exceptions=False)
    assert re.findall(r'\$ (\w+)', result.output) == ['train', 'test', 'predict']
    for text in ('box AP50', '0.910', 'mask AP50', '0.500', '61', 'some/epoch_12.pth', 'vis/1.jpg'):
        assert text in result.output
    (record,) = json.loads((tmp_path / 'out' / 'results.json').read_text())
    assert record['metrics'] == {'box AP50': 0.91, 'mask AP50': 0.5}


def test_what_is_in_the_way_of_the_toy_data_is_named_with_the_fix(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quickstart.DATA.mkdir(parents=True)
    (quickstart.DATA / 'mine.txt').touch()
    with pytest.raises(UserError, match='`mmuniformer toy-data data/toy --force`'):
        quickstart.quickstart(['det'], tmp_path / 'out')
