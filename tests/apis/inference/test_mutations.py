"""``predict`` on damaged image files: each is predicted or reported, in bounded memory and time."""

import json
import os
import resource
import shutil
import time

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from mutations import KINDS, damage, mutated, one_color_png
from nano_models import CONFIGS, save_weights

from mmuniformer.apis.inference import Frames
from mmuniformer.apis.inference.decode import Video
from mmuniformer.cli import group
from mmuniformer.errors import InputError

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
    make, frames_of = Frames.__init__, Frames.__iter__

    def noted(frames, *args):
        make(frames, *args)
        runs.append(frames)

    def timed(frames):
        start = time.perf_counter()
        for frame in frames_of(frames):
            seconds.append(time.perf_counter() - start)
            yield frame
            start = time.perf_counter()

    def run(task, folder, *options):
        out = tmp_path / 'out'
        result = CliRunner().invoke(
            group,
            ['predict', task, CONFIGS[task], str(weights / f'{task}.pth'), str(folder)]
            + ['--device', 'cpu', '--batch-size', '4', '--out', str(out), *options],
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 3
        images = json.loads((out / 'images.json').read_text())['images']
        shutil.rmtree(out)
        reported = [line.partition(': ')[0] for line in runs[-1].skipped]
        return [image['file_name'] for image in images], reported, max(seconds)

    monkeypatch.setattr(Frames, '__init__', noted)
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
    done, reported, seconds = predict(task, folder, '--max-pixels', str(MAX_PIXELS))
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


ODD_SIZES = {
    (1, 1): ('det', 'seg', 'pose'),
    (2, 3): ('det', 'seg', 'pose'),
    (1, 500): ('pose',),
    (500, 1): ('pose',),
    (20_000, 1): ('pose',),
    (20_000, 300): ('det', 'pose'),
    (300, 20_000): ('det', 'pose'),
    (30_000, 30_000): (),
}
"""The tasks that predict on an image of a width and height; a test pipeline resizes its sides."""


@pytest.mark.parametrize('task', CONFIGS)
def test_odd_sizes_are_predicted_or_reported(predict, task, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for width, height in ODD_SIZES:
        (folder / f'{width}x{height}.png').write_bytes(one_color_png(height, width))
    done, reported, _ = predict(task, folder)
    expected = {f'{w}x{h}.png' for (w, h), tasks in ODD_SIZES.items() if task in tasks}
    assert {os.path.basename(path) for path in done} == expected
    assert len(done + reported) == len(ODD_SIZES)


def read_damaged_videos(folder, numbers):
    """Read damaged videos; return how many gave all frames, some and none."""
    files = []
    for name, code in (('a.avi', 'MJPG'), ('b.mp4', 'mp4v')):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*code), 10, (48, 40))
        for index in range(6):
            writer.write(np.full((40, 48, 3), 30 * index, np.uint8))
        writer.release()
        files.append((folder / name).read_bytes())
    counts = [0, 0, 0]
    for number in numbers:
        random = np.random.default_rng(number)
        content = bytearray(files[number % 2])
        suffix = ('.avi', '.mp4')[number % 2]
        damage(KINDS[number // 2 % 4], suffix, content, random)
        path = folder / f'c{suffix}'
        path.write_bytes(content)
        start, read, whole = time.perf_counter(), 0, False
        try:
            for _ in Video(path, MAX_PIXELS).frames():
                read += 1
            whole = True
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017
        assert time.perf_counter() - start < 10
        counts[0 if whole else 1 if read else 2] += 1
    return counts


def test_damaged_videos_are_read_or_reported(tmp_path):
    assert min(read_damaged_videos(tmp_path, range(80))) > 4


@pytest.mark.minutes
def test_two_thousand_damaged_videos(tmp_path, record_property):
    record_property('whole, in part, none', read_damaged_videos(tmp_path, range(2000)))
