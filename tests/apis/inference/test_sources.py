"""Files, folders and patterns as sources of frames."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from videos import write_video

from mmuniformer.apis.inference.sources import Frame, Frames, name_sources


def write_images(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (40, 30), (10, 20, 30)).save(folder / name)


def test_files_folders_and_patterns(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'c.mp4', 'notes.txt', '.hidden.jpg', 'sub/d.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    (tmp_path / 'nothing').mkdir()

    def names(*inputs):
        frames = Frames([tmp_path / i for i in inputs])
        return [s.path.name for s in frames.sources], frames.skipped

    assert names('') == (['a.PNG', 'b.jpg', 'c.mp4'], [])
    assert names('**/*.jpg') == (['b.jpg', 'd.jpg'], [])
    assert names('b.jpg', '', 'sub/../b.jpg')[0] == ['b.jpg', 'a.PNG', 'c.mp4']
    assert names('notes.txt')[0] == ['notes.txt']
    found, skipped = names('nothing', '*.gif', 'gone.jpg', 'b.jpg', 'x' * 300, 'a\0b.jpg')
    assert found == ['b.jpg']
    assert skipped == [
        f'{tmp_path}/nothing: the folder holds no image and no video',
        f'{tmp_path}/*.gif: the pattern matches no file',
        f'{tmp_path}/gone.jpg: no such file, folder or pattern',
        f'{tmp_path}/{"x" * 300}: File name too long',
        f'{tmp_path}/a\0b.jpg: no such file, folder or pattern',
    ]
    assert Frames(['']).skipped == [': no such file, folder or pattern']
    assert Frames(['~nobody.jpg']).skipped == ['~nobody.jpg: no such file, folder or pattern']


def test_what_is_no_file_is_not_left_out_silently(tmp_path):
    write_images(tmp_path, 'a.png')
    (tmp_path / 'gone.jpg').symlink_to(tmp_path / 'nowhere.jpg')
    (tmp_path / 'loop.jpg').symlink_to(tmp_path / 'loop.jpg')
    (tmp_path / 'folder.jpg').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    for given in (tmp_path, tmp_path / '*', tmp_path / '**/*'):
        frames = Frames([given])
        assert [frame.source.name for frame in frames] == ['a']
        assert frames.skipped == [
            f'{tmp_path}/gone.jpg: No such file or directory',
            f'{tmp_path}/loop.jpg: Too many levels of symbolic links',
            f'{tmp_path}/pipe.jpg: a pipe, not a regular file',
        ]


def test_patterns_end_where_links_form_loops(tmp_path):
    """Each of two such links doubles the paths at each level."""
    write_images(tmp_path, 'a/a.png', 'b/b.png')
    (tmp_path / 'a' / 'linked').symlink_to(tmp_path / 'b')
    for name in ('one', 'two'):
        (tmp_path / 'b' / name).symlink_to(tmp_path)
    sources = Frames([tmp_path / '**' / '*.png']).sources
    assert [source.name for source in sources] == ['a', 'b']
    assert [s.name for s in Frames([tmp_path / 'a' / '**' / 'linked' / '*.png']).sources] == ['b']
    assert [s.name for s in Frames([tmp_path / 'a' / '**']).sources] == ['a', 'b']


def test_names_of_outputs_are_no_longer_than_file_systems_take(tmp_path):
    paths = [Path(f'{folder}/{"ä" * 125}.png') for folder in 'xy']
    sources = name_sources(paths)
    assert [source.name for source in sources] == ['ä' * 115, 'ä' * 115 + '_2']


def test_sources_of_one_name_get_names_of_their_own(tmp_path):
    files = ['x/a.jpg', 'y/a.jpg', 'y/a_2.jpg', 'z/A.png', 'z/a.mp4']
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    sources = Frames([tmp_path / name for name in files]).sources
    assert [source.name for source in sources] == ['a', 'a_3', 'a_2', 'A_4', 'a_5']


def test_frames_of_images_and_videos_and_how_many_are_past(tmp_path):
    write_images(tmp_path, 'a.png', 'c.png')
    write_video(tmp_path / 'b.avi', 3)
    (tmp_path / 'broken.png').write_bytes(b'x')
    names = ('a.png', 'b.avi', 'broken.png', 'c.png', 'gone.png')
    frames = Frames([tmp_path / name for name in names])
    assert (frames.read, frames.total) == (0, 4)
    seen = [(f.source.name, f.index, f.id, f.fps, frames.read, frames.total) for f in frames]
    assert seen == [
        ('a', None, 1, None, 1, 4),
        ('b', 0, 2, 10.0, 2, 6),
        ('b', 1, 3, 10.0, 3, 6),
        ('b', 2, 4, 10.0, 4, 6),
        ('c', None, 5, None, 6, 6),
    ]
    assert [line.split(':')[0] for line in frames.skipped] == [
        f'{tmp_path}/gone.png',
        f'{tmp_path}/broken.png',
    ]


def test_a_video_is_opened_once(tmp_path, monkeypatch):
    opened, capture = [], cv2.VideoCapture

    def opening(path):
        opened.append(path)
        return capture(path)

    monkeypatch.setattr(cv2, 'VideoCapture', opening)
    assert len(list(Frames([write_video(tmp_path / 'a.avi', 3)]))) == 3
    assert opened == [str(tmp_path / 'a.avi')]


def test_frames_that_the_annotation_file_lacks_are_skipped_together(tmp_path):
    clip = write_video(tmp_path / 'a.avi', 5, corrupt=[3])
    images = [{'id': 7 + i, 'file_name': 'a.avi', 'frame_id': i} for i in (1, 2)]
    frames = Frames([clip], {'images': images})
    assert [(f.index, f.id) for f in frames] == [(1, 8), (2, 9)]
    assert frames.skipped == [
        f'{clip}: 2 frames not in the annotation file',
        f'{clip}: 1 of 5 frames are corrupt, from frame 3 on',
    ]


def test_images_of_a_video_data_set_are_found_by_file_name(tmp_path):
    """Each has a frame_id, and is a file of its own."""
    write_images(tmp_path, 'v1/000.png', 'v2/000.png', 'v2/001.png')
    images = [
        {'id': 3, 'file_name': 'v1/000.png', 'frame_id': 0, 'video_id': 1},
        {'id': 4, 'file_name': 'v2/000.png', 'frame_id': 0, 'video_id': 2},
        {'id': 5, 'file_name': 'v2/001.png', 'frame_id': 1, 'video_id': 2},
    ]
    frames = Frames([tmp_path / 'v1', tmp_path / 'v2'], {'images': images})
    assert [frame.id for frame in frames] == [3, 4, 5]
    assert not frames.skipped


def test_frames_say_what_they_are(tmp_path):
    write_images(tmp_path, 'a.png')
    (frame,) = Frames([tmp_path / 'a.png'])
    assert str(frame) == f'{tmp_path}/a.png'
    clip = write_video(tmp_path / 'a.avi', 1)
    (frame,) = Frames([clip])
    assert str(frame) == f'{clip}, frame 0'
    assert str(Frame(np.zeros((2, 2, 3), np.uint8), 5)) == 'image 5'
