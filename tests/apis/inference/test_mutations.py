"""``predict`` on damaged image files: each is predicted or reported, in bounded memory and time."""

import json
import os
import resource
import shutil
import time

import pytest
from click.testing import CliRunner
from mutations import mutated
from nano_models import CONFIGS, save_weights

from mmuniformer.apis.inference import Frames
from mmuniformer.cli import group

MAX_PIXELS = 300_000
ALL, CHUNK = 10_000, 1_000
pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp('weights'))


@pytest.fixture
def predict(weights, tmp_path, monkeypatch):
    """Predict on files; return the names of those done and reported, and what decoding took."""
    runs, seconds = [], []
    frames_of = Frames.__iter__

    def timed(frames):
        runs.append(frames)
        start = time.perf_counter()
        for frame in frames_of(frames):
            seconds.append(time.perf_counter() - start)
            yield frame
            start = time.perf_counter()

    def run(task, folder):
        out = tmp_path / 'out'
        result = CliRunner().invoke(
            group,
            ['predict', task, CONFIGS[task], str(weights / f'{task}.pth'), str(folder)]
            + ['--device', 'cpu', '--batch-size', '4', '--max-pixels', str(MAX_PIXELS)]
            + ['--out', str(out)],
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 3
        images = json.loads((out / 'images.json').read_text())['images']
        shutil.rmtree(out)
        reported = [line.partition(': ')[0] for line in runs[-1].skipped]
        return [image['file_name'] for image in images], reported, max(seconds)

    monkeypatch.setattr(Frames, '__iter__', timed)
    return run


def check(predict, task, numbers, folder):
    """Predict on the files that some numbers stand for; return how many were done."""
    folder = folder / 'in'
    folder.mkdir()
    for number in numbers:
        suffix, content = mutated(number)
        (folder / f'{number:05d}{suffix}').write_bytes(content)
    files = sorted(path.as_posix() for path in folder.iterdir())
    opened = len(os.listdir('/dev/fd'))
    done, reported, seconds = predict(task, folder)
    assert sorted(done + reported) == files
    assert min(len(done), len(reported)) > len(files) / 5, 'the damage is too small or too great'
    assert seconds < 10
    assert len(os.listdir('/dev/fd')) <= opened
    shutil.rmtree(folder)
    return len(done)


@pytest.mark.parametrize('task', CONFIGS)
def test_damaged_files_are_predicted_or_reported(predict, task, tmp_path):
    check(predict, task, range(60), tmp_path)


@pytest.mark.minutes
@pytest.mark.parametrize('start', range(0, ALL, CHUNK))
@pytest.mark.parametrize('task', CONFIGS)
def test_ten_thousand_damaged_files(predict, task, start, tmp_path, record_property):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = check(predict, task, range(start, start + CHUNK), tmp_path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    record_property('done', done)
    record_property('grown', grown)
    assert grown < 400_000, 'KiB'
