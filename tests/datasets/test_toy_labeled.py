"""Toy data for classification: what is on the images and clips, and what stays on disk."""

import json

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2')

from mmuniformer.datasets.toy import labeled  # noqa: E402
from mmuniformer.datasets.toy.motion import DIRECTIONS, FRAMES, MOTIONS, SIDE, toy_clip  # noqa: E402
from mmuniformer.datasets.toy.write import CLASSES, write_toy_data  # noqa: E402
from mmuniformer.errors import UserError  # noqa: E402


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_toy_data(tmp_path_factory.mktemp('toy') / 'set', train_images=4, val_images=3)


@pytest.fixture
def few_clips(monkeypatch):
    monkeypatch.setattr(labeled, 'CLIPS_PER_MOTION', {'train': 2, 'val': 1})


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.glob('*/*/*')}


def test_every_object_is_cut_out_into_the_folder_of_its_class(data):
    out = labeled.write_toy_crops(data)
    wanted = set()
    for split in ('train', 'val'):
        truth = json.loads((data.coco / f'annotations/instances_{split}2017.json').read_text())
        for entry in truth['annotations']:
            name = CLASSES[entry['category_id'] - 1]
            wanted.add(f'{split}/{name}/{entry["id"]:05d}.png')
    assert names(out) == wanted
    assert len(wanted) > 10
    assert {cv2.imread(str(out / name)).shape for name in wanted} == {(64, 64, 3)}


def test_crop_has_the_box_in_its_middle_with_the_margin():
    """Of 100 pixels with a margin of 0.15 at each edge, the box fills 77."""
    image = np.zeros((300, 400, 3), np.uint8)
    image[120:180, 100:200] = 255
    crop = labeled.crop(image, [100, 120, 100, 60])[..., 0] / 255
    margin = 64 * 0.15 / 1.3
    assert crop[32].sum() == pytest.approx(64 - 2 * margin, abs=0.5)
    assert crop[:, 32].sum() == pytest.approx(64 * 0.6 / 1.3, abs=0.5)
    # in the middle: the same from all sides
    assert np.abs(crop - crop[::-1]).max() < 0.02
    assert np.abs(crop - crop[:, ::-1]).max() < 0.02


def test_clips_are_read_back_as_drawn_and_follow_the_seed(data, few_clips):
    out = labeled.write_toy_clips(data)
    wanted = {'train': ('0000', '0001'), 'val': ('0000',)}
    assert names(out) == {
        f'{split}/{motion}/{number}.avi'
        for split, numbers in wanted.items()
        for motion in MOTIONS
        for number in numbers
    }
    capture = cv2.VideoCapture(str(out / 'val/up/0000.avi'))
    frames = np.stack([capture.read()[1] for _ in range(FRAMES)])[..., ::-1]
    assert not capture.read()[0]
    stream = (data.settings.seed, 1, MOTIONS.index('up'), 0)
    drawn = toy_clip('up', np.random.default_rng(stream))
    assert frames.shape == (FRAMES, SIDE, SIDE, 3)
    assert np.abs(frames.astype(int) - drawn).mean() < 4  # by JPEG
    assert drawn.std() > 20
    first, second = ((out / f'train/up/000{i}.avi').read_bytes() for i in range(2))
    assert first != second


@pytest.mark.parametrize(
    ('motion', 'opposite'), [('left', 'right'), ('up', 'down'), ('grow', 'shrink')]
)
def test_a_motion_backward_is_the_opposite_one(motion, opposite):
    """So that a frame alone tells nothing."""
    clip, other = (toy_clip(each, np.random.default_rng(3)) for each in (motion, opposite))
    assert (clip[::-1] == other).all()
    assert (clip != other).any()
    assert (motion in DIRECTIONS) == (opposite in DIRECTIONS)


def test_what_is_there_stays_and_what_is_half_written_goes(data, few_clips):
    out = labeled.write_toy_clips(data)
    kept = out / 'val/up/0000.avi'
    kept.write_bytes(b'mine')
    assert labeled.write_toy_clips(data) == out
    assert kept.read_bytes() == b'mine'
    out.rename(data.out / '.video.part')
    assert kept.exists() is False
    labeled.write_toy_clips(data)
    assert len(kept.read_bytes()) > 1000
    assert not (data.out / '.video.part').exists()


def test_other_toy_data_replaces_both(tmp_path, few_clips):
    data = write_toy_data(tmp_path / 'toy', train_images=1, val_images=1)
    crops, clips = labeled.write_toy_crops(data), labeled.write_toy_clips(data)
    (crops / 'notes.txt').touch()
    write_toy_data(tmp_path / 'toy', seed=1, train_images=1, val_images=1, force=True)
    assert not clips.exists()
    assert [path.name for path in crops.iterdir()] == ['notes.txt']
    with pytest.raises(UserError, match='cls lacks train or val: remove it'):
        labeled.write_toy_crops(data)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    data = write_toy_data(tmp_path / 'toy', train_images=1, val_images=1)
    monkeypatch.setattr(labeled, 'encode_clip', lambda path, clip: False)
    with pytest.raises(UserError, match=r'0000\.avi cannot be written \(OpenCV could not write it'):
        labeled.write_toy_clips(data)
    assert not (data.out / 'video').exists()
