"""Files of a run: whole or not at all, and never in place of an input."""

import json
import os

import numpy as np
import pytest

from mmuniformer.apis.inference import writers
from mmuniformer.apis.inference.run import Task
from mmuniformer.apis.inference.sources import Frame, Source
from mmuniformer.apis.inference.writers import WriteError, Writer
from mmuniformer.errors import UserError


class Counting(Task):
    """A task whose result is how many records it gives."""

    categories = ({'id': 1, 'name': 'ball'},)
    unit = 'balls'

    def records(self, frame, result):
        return [{'image_id': frame.id, 'category_id': 1}] * result

    def draw(self, image, result):
        return image


def frame(path, number=1, **kwargs):
    return Frame(np.zeros((60, 80, 3), np.uint8), number, Source(path, path.stem), **kwargs)


def results(folder):
    return [json.loads((folder / f'{name}.json').read_text()) for name in ('predictions', 'images')]


def test_results_are_not_replaced(tmp_path):
    source = Source(tmp_path / 'in' / 'a.jpg', 'a')
    (tmp_path / 'vis').mkdir()
    (tmp_path / 'vis' / 'a.jpg').write_bytes(b'x')
    with pytest.raises(UserError, match=r'vis/a.jpg exists.*--force'):
        Writer(tmp_path, [source])
    Writer(tmp_path, [source], force=True)
    Writer(tmp_path, [source], vis=False)
    with pytest.raises(UserError, match='is an input and would be replaced'):
        Writer(tmp_path, [Source(tmp_path / 'vis' / 'a.jpg', 'a')], force=True)


def test_whole_run(tmp_path):
    frames = [frame(tmp_path / f'{name}.jpg', i) for i, name in enumerate('abc')]
    writer = Writer(tmp_path / 'out', [f.source for f in frames])
    with writer:
        for each, count in zip(frames, (0, 2, 1), strict=True):
            writer.add(Counting(), each, count)
    found, listing = results(tmp_path / 'out')
    assert [record['image_id'] for record in found] == [1, 1, 2]
    assert listing['categories'] == [{'id': 1, 'name': 'ball'}]
    assert listing['images'][1] == {
        'id': 1,
        'file_name': f'{tmp_path}/b.jpg',
        'width': 80,
        'height': 60,
        'vis': 'vis/b.jpg',
    }
    names = sorted(path.name for path in (tmp_path / 'out').rglob('*'))
    assert names == ['a.jpg', 'b.jpg', 'c.jpg', 'images.json', 'predictions.json', 'vis']
    assert (writer.finished, writer.records) == (True, 3)


@pytest.mark.parametrize('counts', [(2,), (0,), (0, 0)])
def test_interrupted_run_leaves_whole_files(tmp_path, counts):
    frames = [frame(tmp_path / f'{i}.jpg', i) for i in range(len(counts))]
    writer = Writer(tmp_path / 'out', [f.source for f in frames], vis=False)
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012
        for each, count in zip(frames, counts, strict=True):
            writer.add(Counting(), each, count)
        raise KeyboardInterrupt
    found, listing = results(tmp_path / 'out')
    assert (len(found), len(listing['images'])) == (sum(counts), len(counts))
    assert writer.finished


def test_interrupted_video_is_whole(tmp_path):
    import cv2

    source = tmp_path / 'clip.avi'
    writer = Writer(tmp_path / 'out', [Source(source, 'clip')])
    with pytest.raises(KeyboardInterrupt), writer:  # noqa: PT012
        for index in range(3):
            writer.add(Counting(), frame(source, index, index=index, fps=10), 1)
        raise KeyboardInterrupt
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'vis' / 'clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_run_without_an_image_leaves_what_was_there(tmp_path):
    (tmp_path / 'predictions.json').write_text('[1]')
    with Writer(tmp_path, [], force=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['predictions.json']
    assert (tmp_path / 'predictions.json').read_text() == '[1]'


class FullDisk:
    """A text file on a disk without space."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        raise OSError(28, 'No space left on device')

    def close(self):
        self.stream.close()
        raise OSError(28, 'No space left on device')


@pytest.mark.parametrize('count', [0, 1], ids=['at the end', 'on the way'])
def test_full_disk_leaves_earlier_results(tmp_path, count):
    for name in ('predictions.json', 'images.json'):
        (tmp_path / name).write_text('[1]')
    writer = Writer(tmp_path, [], vis=False, force=True)
    with pytest.raises(WriteError, match=r'predictions\.json could not.*No space left'), writer:  # noqa: PT012
        writer.stream = FullDisk(writer.stream)
        writer.add(Counting(), frame(tmp_path / 'a.jpg'), count)
    assert not writer.finished
    assert sorted(path.name for path in tmp_path.iterdir()) == ['images.json', 'predictions.json']
    assert {path.read_text() for path in tmp_path.iterdir()} == {'[1]'}


def test_interrupted_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    def interrupted(source, target):
        raise KeyboardInterrupt

    (tmp_path / 'a').write_bytes(b'old')
    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        writers.write_whole(tmp_path / 'a', b'new')
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'old']


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_bytes(b'x')
    with pytest.raises(WriteError, match='predictions.json could not be written: Not a directory'):
        Writer(tmp_path / 'file' / 'out', []).__enter__()


def test_one_run_at_a_time_writes_into_a_folder(tmp_path):
    first, second = (Writer(tmp_path, [], force=True) for _ in range(2))
    with first:
        with pytest.raises(UserError, match=f'another run writes into {tmp_path}: .* --out'):
            second.__enter__()
        first.add(Counting(), frame(tmp_path / 'a.jpg'), 1)
    with second:
        second.add(Counting(), frame(tmp_path / 'b.jpg'), 2)
    assert [len(each) for each in results(tmp_path)] == [2, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ['images.json', 'predictions.json', 'vis']


def test_results_of_a_run_that_ended_meanwhile_are_not_replaced(tmp_path):
    first, second = (Writer(tmp_path, [], vis=False) for _ in range(2))
    with first:
        first.add(Counting(), frame(tmp_path / 'a.jpg'), 1)
    before = results(tmp_path)
    with pytest.raises(UserError, match='predictions.json exists'), second:
        pass
    assert results(tmp_path) == before


@pytest.mark.parametrize(
    ('sizes', 'expected'),
    [([(1, 7)], (2, 7)), ([(9000, 20)], (8190, 18)), ([(40, 60), (20, 30), (40, 60)], (40, 60))],
)
def test_drawn_videos_of_any_size(tmp_path, sizes, expected):
    """MPEG-4 has its limits, and OpenCV leaves out frames of another size than the first."""
    import cv2

    source = Source(tmp_path / 'clip.avi', 'clip')
    with Writer(tmp_path / 'out', [source]) as writer:
        for index, size in enumerate(sizes):
            image = np.zeros((*size, 3), np.uint8)
            writer.add(Counting(), Frame(image, index, source, index, 10), 1)
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'vis' / 'clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == len(sizes)
    sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
    assert np.allclose([video.get(side) for side in sides], expected, atol=1)


def test_long_drawings_fit_into_a_jpeg(tmp_path):
    """A PNG, say, by the name of a JPEG."""
    with Writer(tmp_path / 'out', []) as writer:
        each = Frame(np.zeros((4, 70_000, 3), np.uint8), 1, Source(tmp_path / 'a.jpg', 'a'))
        writer.add(Counting(), each, 1)
    assert (tmp_path / 'out' / 'vis' / 'a.jpg').exists()
    assert results(tmp_path / 'out')[1]['images'][0]['width'] == 70_000


def test_errors_of_others_stay_what_they_are(tmp_path):
    """An OSError of a user's model is no failure to write."""
    writer = Writer(tmp_path / 'out', [])
    with pytest.raises(FileNotFoundError, match='my table'), writer:
        raise FileNotFoundError('my table')
