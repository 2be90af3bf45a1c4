"""Prediction under load: long runs, threads that share a model, runs in one folder, full disks."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from nano_models import CONFIGS, randomize, save_weights
from PIL import Image
from videos import write_video

from mmuniformer import Predictor
from mmuniformer.apis.inference import Writer
from mmuniformer.cli import group

IMAGES, FRAMES, STEADY = 1000, 2000, 300
"""Of a long run, and the images after which the memory should not grow."""
pytestmark = pytest.mark.integration
each_task = pytest.mark.parametrize('task', CONFIGS)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp('weights'))


@pytest.fixture(scope='module')
def images(toy_root):
    return sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))


@pytest.fixture
def command(weights, tmp_path):
    def words(task, *inputs):
        model = [CONFIGS[task], str(weights / f'{task}.pth')]
        return ['predict', task, *model, *map(str, inputs), '--out', str(tmp_path / 'out')]

    return words


def in_use():
    """Memory in KiB, and the number of open files, threads and children of this process."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    children = Path(f'/proc/self/task/{os.getpid()}/children').read_text().split()
    return pages * os.sysconf('SC_PAGE_SIZE') // 1024, (
        len(os.listdir('/proc/self/fd')), threading.active_count(), len(children),
    )  # fmt: skip


@pytest.mark.minutes
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@each_task
def test_a_long_run_keeps_its_memory(task, command, images, tmp_path, monkeypatch, record_property):
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(IMAGES):
        shutil.copy(images[number % len(images)], folder / f'{number + 1}.jpg')
    write_video(folder / 'clip.avi', FRAMES, step=0.1)
    used, add = [], Writer.add

    def counted(*args):
        add(*args)
        used.append(in_use())

    monkeypatch.setattr(Writer, 'add', counted)
    CliRunner().invoke(group, command(task, images[0]) + ['--force'])  # loads what is loaded once
    used.clear()
    before = in_use()[1]
    result = CliRunner().invoke(group, command(task, folder) + ['--force'])
    assert result.exit_code == 0, result.output
    assert len(used) == IMAGES + FRAMES
    assert in_use()[1] == before
    assert {counts for _, counts in used[1:IMAGES]} == {used[1][1]}
    slopes = {
        name: np.polyfit(range(len(part)), [memory for memory, _ in part], 1)[0]
        for name, part in (('images', used[STEADY:IMAGES]), ('frames', used[IMAGES + STEADY :]))
    }
    for name, slope in slopes.items():
        record_property(name, f'{slope:.2f} KiB')
        assert slope < 16, f'KiB for each of the {name}: an image takes 48'


@each_task
def test_threads_share_a_model(task, images):
    predictor = Predictor(CONFIGS[task], False, 'cpu', score_thr=0.05)
    randomize(predictor.model)
    arrays = [cv2.resize(cv2.imread(str(images[i % 4])), (96 + 8 * i, 128)) for i in range(3)]
    alone = [predictor(array)[0] for array in arrays]

    def work(start):
        order = [(start + step) % len(arrays) for step in range(len(arrays))]
        return [(index, predictor(arrays[index])[0]) for index in order]

    with ThreadPoolExecutor(8) as pool:
        done = [pair for pairs in pool.map(work, range(8)) for pair in pairs]
    assert len(done) == 24
    for index, found in done:
        assert found.keys() == alone[index].keys()
        for name, values in found.items():
            assert np.array_equal(values, alone[index][name]), name


@pytest.mark.minutes
def test_two_runs_in_one_folder(command, images, tmp_path):
    """They start together: one is refused, and what the other wrote is whole."""
    words = [sys.executable, '-c', 'from mmuniformer.cli import main; main()']
    words += command('seg', *images * 20, '--no-vis', '--force')
    many = tmp_path / 'many'
    many.mkdir()
    for number in range(200):
        shutil.copy(images[number % len(images)], many / f'{number + 1}.jpg')
    words.insert(-4, str(many))
    runs = [
        subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [run.communicate()[1] for run in runs]
    statuses = [run.returncode for run in runs]
    assert sorted(statuses) == [0, 1]
    assert f'another run writes into {tmp_path / "out"}' in said[statuses.index(1)]
    found, listing = (
        json.loads((tmp_path / 'out' / f'{name}.json').read_text())
        for name in ('predictions', 'images')
    )
    assert {r['image_id'] for r in found} == {image['id'] for image in listing['images']}
    assert len(listing['images']) == 200 + len(images)


@pytest.fixture
def disk_of():
    """Set the largest file that this process can write."""
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize(
    ('size', 'file', 'reason'),
    [
        (3000, 'predictions.json', 'File too large'),
        (3000, 'vis/clip.mp4', 'it does not hold all frames; is the disk full'),
        (200, 'masks/0000', 'File too large'),
    ],
)
def test_a_full_disk_leaves_the_results_of_before(
    command, images, tmp_path, monkeypatch, disk_of, size, file, reason
):
    inputs = images
    if file.endswith('.mp4'):
        inputs = [write_video(tmp_path / 'clip.avi', 12)]
    words = [*command('seg', *inputs), '--device', 'cpu', '--force']
    assert CliRunner().invoke(group, words).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / 'out').glob('*.json')}
    enter = Writer.__enter__
    # Reading a config writes files, too.
    monkeypatch.setattr(Writer, '__enter__', lambda writer: (disk_of(size), enter(writer))[1])
    result = CliRunner().invoke(group, words + ['--no-vis'] * (file == 'predictions.json'))
    assert result.exit_code == 1
    assert f'{tmp_path}/out/{file}' in result.output
    assert f'could not be written: {reason}' in result.output
    assert {p.name: p.read_bytes() for p in (tmp_path / 'out').glob('*.json')} == before
    left = {path.name for path in (tmp_path / 'out').iterdir()}
    assert left == {*before, 'masks', 'vis'}


@pytest.mark.minutes
@pytest.mark.skipif(sys.platform != 'linux', reason='counts memory in KiB')
@each_task
def test_the_largest_images_take_bounded_memory(
    task, run_python, command, tmp_path, record_property
):
    for name in ('a', 'b'):  # the second is read when the first is no longer needed
        Image.new('L', (9400, 9400), 90).save(tmp_path / f'{name}.jpg')
    code = 'import resource, sys\nfrom mmuniformer.cli import main\ntry: main(sys.argv[1:])\n'
    code += 'finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)'
    words = command(task, tmp_path / 'a.jpg', tmp_path / 'b.jpg')
    result = run_python('-c', code, *words, '--device', 'cpu', '--batch-size', '2')
    assert result.returncode == 0, result.stderr
    memory = int(result.stdout.split()[-1])
    record_property('memory', f'{memory / 2**20:.1f} GiB')
    assert memory < 4 * 2**20


LITTLE_MEMORY = """
import resource
from pathlib import Path
import numpy as np
from mmuniformer import Predictor
from mmuniformer.errors import InputError

predictor = Predictor('upernet_uniformer-nano_toy-128x128', False, 'cpu')
small, huge = (np.zeros((side, side, 3), np.uint8) for side in (64, 6000))
predictor(small)
pages = int(Path('/proc/self/statm').read_text().split()[0])
limit = pages * resource.getpagesize() + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = predictor([small, huge, small], batch_size=3, return_errors=True)
assert isinstance(found[1], InputError), found[1]
assert 'not enough memory' in str(found[1]), found[1]
assert [found[i]['label_map'].shape for i in (0, 2)] == [(64, 64)] * 2
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_an_image_that_the_memory_is_not_enough_for_does_not_stop_the_others(run_python):
    result = run_python('-c', LITTLE_MEMORY)
    assert result.returncode == 0, result.stderr
