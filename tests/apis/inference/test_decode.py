"""Image and video files, decoded as people see them."""

import io
import os
import socket
import struct
import subprocess
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from videos import write_video

from mmuniformer.apis.inference import decode
from mmuniformer.apis.inference.decode import Video, read_image
from mmuniformer.errors import InputError

UPRIGHT = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
# What a camera that notes this orientation has stored, for it to be seen as UPRIGHT.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def save(path, pixels, orientation=None, **options):
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if orientation:
        image.getexif()[0x0112] = orientation
        options['exif'] = image.getexif()
    image.save(path, **options)
    return path


def write_png16(path, pixels):
    """Write 16-bit gray, gray and alpha, RGB or RGBA: Pillow cannot."""
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, data):
        return (
            struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        )

    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 16, kind, 0, 0, 0))
        + chunk(b'IDAT', zlib.compress(rows))
        + chunk(b'IEND', b'')
    )
    return path


@pytest.mark.parametrize('orientation', STORED)
def test_camera_orientation_is_applied(tmp_path, orientation):
    path = save(tmp_path / 'a.png', STORED[orientation](UPRIGHT), orientation)
    assert np.array_equal(read_image(path), UPRIGHT[..., ::-1])


def test_jpeg_is_decoded_as_the_frameworks_do(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    path = save(tmp_path / 'a.jpg', cv2.GaussianBlur(noise, (9, 9), 3), 6)
    theirs = cv2.imread(str(path))
    ours = read_image(path)
    assert ours.shape == theirs.shape == (56, 40, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_gray_palette_and_cmyk_become_color(tmp_path):
    gray = UPRIGHT[..., 0]
    assert np.array_equal(
        read_image(save(tmp_path / 'gray.png', gray)), np.stack([gray] * 3, axis=-1)
    )
    palette = Image.fromarray(UPRIGHT).quantize(256)
    palette.save(tmp_path / 'palette.png')
    assert np.array_equal(
        read_image(tmp_path / 'palette.png'), np.asarray(palette.convert('RGB'))[..., ::-1]
    )
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'cmyk.jpg', quality=100)
    blue, green, red = read_image(tmp_path / 'cmyk.jpg')[4, 4]
    assert red > 200
    assert max(blue, green) < 60


def test_transparent_parts_become_white(tmp_path):
    pixels = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], 255, np.uint8)])
    pixels[0, 0] = (10, 20, 30, 0)
    pixels[0, 1] = (0, 100, 200, 128)
    seen = read_image(save(tmp_path / 'a.png', pixels))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert np.allclose(seen[0, 1], [227, 177, 127], atol=2)
    assert np.array_equal(seen[1:], UPRIGHT[1:, :, ::-1])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('bits', [16, 12, 8])
def test_deep_images_keep_the_highest_bits_that_they_use(tmp_path, channels, bits):
    eight = UPRIGHT[..., :channels].copy()
    eight[0, 0] = 255
    deep = (eight.astype(np.uint16) << (bits - 8)) | ((1 << (bits - 8)) - 1)
    seen = read_image(write_png16(tmp_path / 'a.png', deep))
    assert np.array_equal(seen, np.broadcast_to(eight[..., ::-1], UPRIGHT.shape))


def test_deep_image_with_alpha(tmp_path):
    deep = np.full((3, 4, 4), 0xFFFF, np.uint16)
    deep[..., 0] = 0x8000
    deep[0, 0, 3] = 0
    seen = read_image(write_png16(tmp_path / 'a.png', deep))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[1, 1].tolist() == [255, 255, 128]


def test_deep_tiff_keeps_its_orientation(tmp_path):
    deep = STORED[6](UPRIGHT)[..., 0].astype(np.uint16) << 8
    deep[0, 0] = 0xFF00
    path = tmp_path / 'a.tiff'
    image = Image.fromarray(np.ascontiguousarray(deep))
    image.save(path, tiffinfo={0x0112: 6})
    seen = read_image(path)
    assert seen.shape == (4, 6, 3)
    assert np.array_equal(seen[1, :-1, 0], UPRIGHT[1, :-1, 0])


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('empty.jpg', b'', 'empty.jpg: the file is empty'),
        ('text.jpg', b'this is no image', 'text.jpg: cannot be read as an image'),
        ('missing.jpg', None, 'missing.jpg: No such file'),
    ],
)
def test_files_that_are_no_images(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_image(tmp_path / name)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_truncated_image_is_not_half_used(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = save(tmp_path / name, noise).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match='truncated'):
        read_image(tmp_path / name)


def test_float_pixels_are_refused_with_advice(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / 'a.tiff')
    with pytest.raises(InputError, match='not integers of 8 or 16 bits: convert'):
        read_image(tmp_path / 'a.tiff')


def frames_of(path):
    """Return the indices of the frames that were read, and what was said at the end."""
    indices = []
    try:
        for index, image in Video(path).frames():
            assert abs(image.mean() - 20 * index) < 6, 'a frame came under another index'
            indices.append(index)
    except InputError as error:
        return indices, str(error)
    return indices, None


def test_video_frames_in_order(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8)
    assert frames_of(path) == (list(range(8)), None)
    assert Video(path).fps == 10


def test_corrupt_frame_is_skipped_and_reported(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8, corrupt=[3])
    assert frames_of(path) == (
        [0, 1, 2, 4, 5, 6, 7],
        f'{path}: 1 of 8 frames are corrupt, from frame 3 on',
    )


def test_video_that_ends_early_is_reported(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8, corrupt=[2, 5, 6, 7])
    assert frames_of(path) == ([0, 1, 3, 4], f'{path}: 4 of 8 frames are corrupt, from frame 2 on')


def test_videos_without_a_frame(tmp_path):
    (tmp_path / 'empty.mp4').write_bytes(b'')
    write_video(tmp_path / 'header.avi', 0)
    write_video(tmp_path / 'broken.avi', 2, corrupt=[0, 1])
    for name, reason in (
        ('missing.mp4', 'No such file'),
        ('empty.mp4', 'empty'),
        ('header.avi', 'no frame|no video'),
        ('broken.avi', 'no frame|no video'),
    ):
        with pytest.raises(InputError, match=reason):
            list(Video(tmp_path / name).frames())


def make_special(kind, path):
    """Make something at a path that is not a regular file."""
    if kind == 'a pipe':
        os.mkfifo(path)
    elif kind == 'a socket':
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == 'a device':
        path.symlink_to('/dev/zero')
    elif kind == 'a folder':
        path.mkdir()
    else:
        path.symlink_to(path)


@pytest.mark.parametrize('name', ['a.jpg', 'a.mp4'])
@pytest.mark.parametrize('kind', ['a pipe', 'a socket', 'a device', 'a folder', 'Too many levels'])
def test_what_is_no_file_is_refused_by_its_kind_and_not_waited_for(tmp_path, kind, name):
    make_special(kind, tmp_path / name)
    with pytest.raises(InputError, match=f'{name}: {kind}'):
        Video(tmp_path / name) if name.endswith('mp4') else read_image(tmp_path / name)


@pytest.mark.parametrize('text', ["ffconcat version 1.0\nfile 'a.mp4'\n", '\ufeff#EXTM3U\na.mp4\n'])
def test_a_list_of_other_files_is_no_video(tmp_path, text):
    """FFmpeg would open them."""
    write_video(tmp_path / 'a.mp4', 2)
    (tmp_path / 'list.mp4').write_text(text)
    with pytest.raises(InputError, match='list.mp4: a list of other files'):
        Video(tmp_path / 'list.mp4')


def test_images_and_videos_up_to_a_number_of_pixels(tmp_path):
    image = save(tmp_path / 'a.png', UPRIGHT)
    assert read_image(image, max_pixels=24).shape == (4, 6, 3)
    with pytest.raises(InputError, match=r'a.png: 4 x 6 .* more than 23 pixels.* --max-pixels'):
        read_image(image, max_pixels=23)
    image.write_bytes(image.read_bytes() + bytes(200))
    with pytest.raises(InputError, match=r'bytes are more than 8 for each of 24 pixels'):
        read_image(image, max_pixels=24)
    video = write_video(tmp_path / 'a.avi', 2, size=(96, 64))
    assert len(list(Video(video, max_pixels=6144).frames())) == 2
    with pytest.raises(InputError, match=r'a.avi: 64 x 96 .* more than 6,143 pixels'):
        Video(video, max_pixels=6143)


def test_more_pixels_than_pillow_allows_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, 'MAX_PIXELS', 10)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)  # an error from twice as many on
    image = save(tmp_path / 'a.png', UPRIGHT)
    with pytest.raises(InputError, match='a.png: more than 10 pixels.* --max-pixels'):
        read_image(image, max_pixels=10)
    assert read_image(image, max_pixels=30).shape == (4, 6, 3)


def progressive(scans, more=b''):
    """A JPEG with many scans in which no bit changes."""
    stream = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(stream, 'JPEG', progressive=True)
    data = stream.getvalue()
    last = data[data.rindex(b'\xff\xda') : -2]
    return data[:-2] + last * (scans - data.count(b'\xff\xda')) + data[-2:] + more


def test_a_jpeg_that_repeats_its_scans_is_refused(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(progressive(501))
    with pytest.raises(InputError, match='a.jpg: .* it has 501 scans, more than 500'):
        read_image(tmp_path / 'a.jpg')
    # What follows the image, such as a video, is no scan.
    (tmp_path / 'b.jpg').write_bytes(progressive(500, more=b'\xff\xda' * 9))
    assert read_image(tmp_path / 'b.jpg').shape == (16, 16, 3)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    Image.fromarray(UPRIGHT).save(tmp_path / 'a.eps')
    (tmp_path / 'a.eps').rename(tmp_path / 'a.jpg')
    monkeypatch.setattr(subprocess, 'check_call', None)  # Pillow calls Ghostscript by it
    with pytest.raises(InputError, match='a.jpg: .*PostScript is a program'):
        read_image(tmp_path / 'a.jpg')


def test_a_header_of_a_size_beyond_all_memory_is_refused(tmp_path):
    path = save(tmp_path / 'a.gif', UPRIGHT)
    data = bytearray(path.read_bytes())
    data[6:10] = b'\xff' * 4  # width and height of a GIF
    path.write_bytes(data)
    with pytest.raises(InputError, match='more than .* pixels'):
        read_image(path)
