"""Videos from files, lists and folders, and what is said of those that cannot be used."""

import logging
import re

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, TRANSFORMS
from videos import write_video

from mmuniformer.datasets.frames import dense_clip, segment_clip
from mmuniformer.errors import InputError, UserError

pytest.importorskip('mmcv', reason='needs mmcv: make install')
pytestmark = pytest.mark.frameworks

STEP = 20
"""Gray values from a frame of ``write_video`` to the next."""


def run(kind, results, **settings):
    return TRANSFORMS.build(dict(type=f'mmuniformer.{kind}', **settings))(results)


def grays(images):
    return [round(float(image.mean()) / STEP) for image in images]


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return str(write_video(tmp_path_factory.mktemp('videos') / 'whole.avi', 12))


def folder_of_frames(root, frames=6):
    root.mkdir(parents=True)
    for number in range(frames):
        image = np.full((16, 24, 3), (STEP * number, 0, 255), np.uint8)  # blue counts, red is full
        cv2.imwrite(str(root / f'img_{number + 1:05}.png'), image)
    return root


@pytest.mark.parametrize('reader', ['cv2', 'decord', 'av'])
def test_readers_give_the_frames_asked_for(video, reader):
    if reader != 'cv2':
        pytest.importorskip(reader)
    opened = run('OpenVideo', {'filename': video}, reader=reader)
    assert opened['total_frames'] == 12
    found = run('LoadFrames', opened | {'frame_inds': np.array([7, 0, 7, 11])})
    assert grays(found['imgs']) == [7, 0, 7, 11]
    assert found['img_shape'] == found['original_shape'] == (64, 96)


def test_default_reader_is_what_is_installed(monkeypatch):
    from mmuniformer.datasets.video import readers

    for installed, name in (({'decord', 'av', 'cv2'}, 'decord'), ({'av', 'cv2'}, 'av'),
                            ({'cv2'}, 'cv2')):  # fmt: skip
        monkeypatch.setattr(
            readers.importlib.util, 'find_spec', lambda key, there=installed: key in there or None
        )
        assert readers.installed_reader() == name
    with pytest.raises(UserError, match="reader='decord': install that package"):
        readers.open_video('any', 'decord')


def test_folder_of_frames_and_order_of_channels(tmp_path):
    folder = folder_of_frames(tmp_path / 'clip')
    sample = dict(frame_dir=str(folder), total_frames=6, filename_tmpl='img_{:05}.png',
                  start_index=1, frame_inds=np.array([0, 5, 5]))  # fmt: skip
    rgb = run('LoadFrames', run('OpenVideo', sample))['imgs']
    bgr = run('LoadFrames', run('OpenVideo', sample), channel_order='bgr')['imgs']
    assert [tuple(image[0, 0]) for image in rgb] == [(255, 0, 0), (255, 0, 100), (255, 0, 100)]
    assert [tuple(image[0, 0]) for image in bgr] == [(0, 0, 255), (100, 0, 255), (100, 0, 255)]
    (folder / 'img_00006.png').unlink()
    with pytest.raises(InputError, match=r'img_00006\.png does not exist.*the folder 6 frames'):
        run('LoadFrames', run('OpenVideo', sample))


@pytest.mark.parametrize('clips', [1, 4])
def test_samplers_of_tests_use_the_published_formulas(clips):
    settings = dict(clip_len=8, num_clips=clips, test_mode=True)
    dense = run('SampleDense', {'total_frames': 100}, frame_interval=4, **settings)
    starts = [(100 - 32) // 2] if clips == 1 else [k * (68 // 3) for k in range(4)]
    expected = np.concatenate([dense_clip(100, 8, 4, start) for start in starts])
    np.testing.assert_array_equal(dense['frame_inds'], expected)
    segments = run('SampleSegments', {'total_frames': 100}, **settings)
    expected = np.concatenate([segment_clip(100, 8, k, clips) for k in range(clips)])
    np.testing.assert_array_equal(segments['frame_inds'], expected)
    assert (segments['num_clips'], segments['clip_len']) == (clips, 8)


def test_samplers_of_training_follow_the_seed_of_numpy():
    for kind, extra in (('SampleDense', {'frame_interval': 2}), ('SampleSegments', {})):
        found = []
        for seed in (0, 0, 1):
            np.random.seed(seed)
            found.append(run(kind, {'total_frames': 200}, clip_len=8, **extra)['frame_inds'])
        np.testing.assert_array_equal(found[0], found[1])
        assert (found[0] != found[2]).any()


def test_short_video_repeats_frames_and_says_so_once(caplog, monkeypatch):
    monkeypatch.setattr(
        'mmuniformer.datasets.video.loading.print_log',
        lambda text, *_: logging.getLogger('test').warning(text),
    )
    sample = TRANSFORMS.build(dict(type='mmuniformer.SampleDense', clip_len=4, frame_interval=4))
    for _ in range(2):
        found = sample({'total_frames': 5, 'filename': 'short.mp4'})
    assert found['frame_inds'].tolist() == [0, 4, 4, 4]
    (record,) = caplog.records
    assert re.search(
        r'short\.mp4 has 5 frames, and a clip spans 16.*frame_interval', record.message
    )


def test_videos_that_cannot_be_decoded_are_named(tmp_path, video):
    from mmuniformer.datasets.video.readers import open_video

    text = tmp_path / 'text.mp4'
    text.write_text('no video')
    with pytest.raises(InputError, match=r'text\.mp4 (is no video|holds no frame).*ffmpeg'):
        open_video(str(text), 'cv2')
    with pytest.raises(InputError, match=r'absent\.mp4 does not exist: correct the list'):
        open_video(str(tmp_path / 'absent.mp4'))
    broken = write_video(tmp_path / 'broken.avi', 12, corrupt=[4])
    reader = open_video(str(broken), 'cv2')
    with pytest.raises(InputError, match=r'broken\.avi: frame 4 of 12 cannot be decoded'):
        reader.frames([1, 4, 6])
    assert grays(open_video(str(broken), 'cv2').frames([3, 5])) == [3, 5]


def test_last_frame_stands_in_for_a_claimed_one(video):
    from mmuniformer.datasets.video.readers import OpenCVReader

    reader = OpenCVReader(video)
    reader.length = 13  # as containers claim now and then
    assert grays(reader.frames([3, 12])) == [3, 3]
    reader = OpenCVReader(video)
    reader.length = 24
    with pytest.raises(InputError, match='frame 15 of 24 cannot be decoded'):
        reader.frames([3, 15])


# --- views and copies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('shape', 'resized', 'corners'),
    [
        ((10, 15), (6, 9), [(0, 0), (0, 2), (0, 3)]),
        ((15, 10), (9, 6), [(0, 0), (2, 0), (3, 0)]),
        ((11, 20), (6, 10), [(0, 0), (0, 2), (0, 4)]),
    ],
)
def test_views_are_the_published_ones(shape, resized, corners):
    sample = {'imgs': [np.zeros((*shape, 3), np.uint8)] * 2, 'img_shape': shape}
    sample = run('ShortSideResize', sample, scale=6)
    assert sample['img_shape'] == sample['imgs'][0].shape[:2] == resized
    rows, columns = np.mgrid[: resized[0], : resized[1]]
    sample['imgs'] = [np.stack([rows, columns, 0 * rows], -1), np.ones((*resized, 3))]
    found = run('ClipCrop', sample, crop_size=6, crops=3)
    assert [tuple(image[0, 0, :2]) for image in found['imgs'][::2]] == corners
    assert [image.shape for image in found['imgs']] == [(6, 6, 3)] * 6
    middle = run('ClipCrop', sample, crop_size=6)
    assert tuple(middle['imgs'][0][0, 0, :2]) == corners[1]
    with pytest.raises(UserError, match='smaller than crop_size=64'):
        run('ClipCrop', sample, crop_size=64)


def test_copies_are_augmented_apart_from_one_decoded_clip():
    frame = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    augment = dict(type='mmuniformer.ClipRandAugment', policy='rand-m9-n6')
    np.random.seed(0)
    first, second = run('Copies', {'imgs': [frame], 'label': 3}, copies=2, transforms=[augment])
    assert (first['label'], second['label']) == (3, 3)
    assert (first['imgs'][0] != second['imgs'][0]).any()


# --- lists and folders --------------------------------------------------------------------------


def dataset(kind='VideoDataset', **settings):
    return DATASETS.build(dict(type=f'mmuniformer.{kind}', pipeline=[], **settings))


def some_videos(root, names=('a b/1.mp4', 'c/2.avi')):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'x')


def test_list_takes_spaces_in_paths_and_either_separator(tmp_path):
    some_videos(tmp_path / 'videos')
    (tmp_path / 'list.txt').write_text('a b/1.mp4 3\n\nc/2.avi,0\n')
    data = dataset(data_root=str(tmp_path), ann_file='list.txt', data_prefix=dict(video='videos'))
    found = [data.get_data_info(i) for i in range(len(data))]
    assert [(info['filename'], info['label']) for info in found] == [
        (str(tmp_path / 'videos/a b/1.mp4'), 3),
        (str(tmp_path / 'videos/c/2.avi'), 0),
    ]
    assert found[0]['modality'] == 'RGB'


def test_folders_are_classes(tmp_path):
    some_videos(tmp_path, ('wave/1.mp4', 'clap/3.avi', 'clap/2.MP4', 'clap/notes.txt'))
    data = dataset(data_prefix=dict(video=str(tmp_path)))
    assert data.metainfo['classes'] == ('clap', 'wave')
    found = [data.get_data_info(i) for i in range(len(data))]
    assert [(info['filename'].rpartition('/')[2], info['label']) for info in found] == [
        ('2.MP4', 0), ('3.avi', 0), ('1.mp4', 1),
    ]  # fmt: skip
    ordered = dataset(
        data_prefix=dict(video=str(tmp_path)), metainfo=dict(classes=['wave', 'clap', 'jump'])
    )
    assert [ordered.get_data_info(i)['label'] for i in range(3)] == [1, 1, 0]
    with pytest.raises(UserError, match='holds the folder wave, no class'):
        dataset(data_prefix=dict(video=str(tmp_path)), metainfo=dict(classes=['clap']))
    with pytest.raises(UserError, match='holds no folders'):
        dataset(data_prefix=dict(video=str(tmp_path / 'wave')))


def test_list_of_frame_folders(tmp_path):
    (tmp_path / 'frames/v 1').mkdir(parents=True)
    (tmp_path / 'list.txt').write_text('v 1 31 4\n')
    data = dataset('FrameDataset', data_root=str(tmp_path), ann_file='list.txt',
                   data_prefix=dict(img='frames'), filename_tmpl='{:05}.jpg')  # fmt: skip
    info = data.get_data_info(0)
    del info['sample_idx']
    assert info == dict(
        frame_dir=str(tmp_path / 'frames/v 1'), total_frames=31, label=4, modality='RGB',
        filename_tmpl='{:05}.jpg', start_index=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('c/2.avi\n', r'list\.txt, line 1: .*is not "PATH LABEL"'),
        ('c/2.avi 1\nc/none.mp4 0\n', r'1 of 2 paths do not exist, the first is .*c/none\.mp4'),
        ('a b/1.mp4 1\nc/2.avi 5\n', r'c/2\.avi has the label 5, and metainfo.classes names 2'),
    ],
)
def test_bad_lists_name_the_line_and_the_way_out(tmp_path, text, message):
    some_videos(tmp_path)
    (tmp_path / 'list.txt').write_text(text)
    with pytest.raises(UserError, match=message):
        dataset(
            ann_file=str(tmp_path / 'list.txt'),
            data_prefix=dict(video=str(tmp_path)),
            metainfo=dict(classes=('one', 'two')),
        )
    with pytest.raises(UserError, match=r'absent\.txt, the list of videos, does not exist'):
        dataset(ann_file=str(tmp_path / 'absent.txt'))
