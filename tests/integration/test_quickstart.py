"""`make quickstart` reaches the scores that it is known for."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# Held-out scores that every change has to keep.
LOWEST = {
    'det': {'box AP50': 0.85, 'mask AP50': 0.80},
    'seg': {'mIoU': 0.80},
    'pose': {'AP (OKS)': 0.70},
    'cls': {'top-1': 0.90},
    'video': {'top-1': 0.85},
}
DRAWN = {'det': 4, 'seg': 4, 'pose': 4, 'cls': 12, 'video': 6}


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory):
    """One run of everything; the folder that it wrote to, and what it printed."""
    folder = tmp_path_factory.mktemp('quickstart')
    command = [Path(sys.executable).with_name('mmuniformer'), 'quickstart']
    log = folder / 'log.txt'
    with log.open('w') as file:
        status = subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    text = log.read_text(errors='replace')
    assert status.returncode == 0, text[-3000:]
    return folder, text


@pytest.mark.parametrize('task', LOWEST)
def test_held_out_scores(quickstart, task):
    folder, _ = quickstart
    results = json.loads((folder / 'work_dirs' / 'quickstart' / 'results.json').read_text())
    (result,) = [entry for entry in results if entry['task'] == task]
    assert set(result['metrics']) == set(LOWEST[task])
    for metric, lowest in LOWEST[task].items():
        assert lowest <= result['metrics'][metric] <= 1, metric


def test_everything_it_names_is_there(quickstart, repository):
    folder, text = quickstart
    out = folder / 'work_dirs' / 'quickstart'
    results = json.loads((out / 'results.json').read_text())
    assert [entry['task'] for entry in results] == list(LOWEST)
    for entry in results:
        assert (folder / entry['checkpoint']).is_file()
        assert len(entry['drawings']) == DRAWN[entry['task']]
        assert all((folder / path).is_file() for path in entry['drawings'])
        assert all(path in text for path in entry['drawings'])
        for value in entry['metrics'].values():
            assert f'{value:.3f}' in text
    tool = repository / 'tools' / 'dev' / 'quickstart_picture.py'
    subprocess.run([sys.executable, tool, 'picture.png'], cwd=folder, check=True)
    with Image.open(folder / 'picture.png') as sheet:
        assert sheet.width > 1000
        assert sheet.height > 1000


def test_commands_are_shown(quickstart):
    _, text = quickstart
    for command in ('train', 'test', 'predict'):
        assert text.count(f'$ mmuniformer {command} ') == len(LOWEST)
