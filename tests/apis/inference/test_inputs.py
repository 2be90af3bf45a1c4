"""Pictures and videos as people see them, COCO files around them, and where results go."""

import io
import json
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from videos import write_video

from mmuniformer.apis.inference import coco
from mmuniformer.apis.inference.inputs import (
    Shot,
    Source,
    UnreadableError,
    Video,
    find_sources,
    read_picture,
)
from mmuniformer.apis.inference.output import Output
from mmuniformer.apis.inference.run import RateColumn, predict
from mmuniformer.errors import UserError
from mmuniformer.visualization import draw

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
    """Write 16-bit grey, grey and alpha, RGB or RGBA: Pillow can not."""
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
    assert np.array_equal(read_picture(path), UPRIGHT[..., ::-1])


def test_jpeg_is_decoded_as_the_frameworks_do(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)
    path = save(tmp_path / 'a.jpg', cv2.GaussianBlur(noise, (9, 9), 3), 6)
    theirs = cv2.imread(str(path))
    ours = read_picture(path)
    assert ours.shape == theirs.shape == (56, 40, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_grey_palette_and_cmyk_become_colour(tmp_path):
    grey = UPRIGHT[..., 0]
    assert np.array_equal(
        read_picture(save(tmp_path / 'grey.png', grey)), np.stack([grey] * 3, axis=-1)
    )
    palette = Image.fromarray(UPRIGHT).quantize(256)
    palette.save(tmp_path / 'palette.png')
    assert np.array_equal(
        read_picture(tmp_path / 'palette.png'), np.asarray(palette.convert('RGB'))[..., ::-1]
    )
    Image.new('CMYK', (8, 8), (0, 255, 255, 0)).save(tmp_path / 'cmyk.jpg', quality=100)
    blue, green, red = read_picture(tmp_path / 'cmyk.jpg')[4, 4]
    assert red > 200
    assert max(blue, green) < 60


def test_transparent_parts_become_white(tmp_path):
    pixels = np.dstack([UPRIGHT, np.full(UPRIGHT.shape[:2], 255, np.uint8)])
    pixels[0, 0] = (10, 20, 30, 0)
    pixels[0, 1] = (0, 100, 200, 128)
    seen = read_picture(save(tmp_path / 'a.png', pixels))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert np.allclose(seen[0, 1], [227, 177, 127], atol=2)
    assert np.array_equal(seen[1:], UPRIGHT[1:, :, ::-1])


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('bits', [16, 12, 8])
def test_deep_pictures_keep_the_highest_bits_that_they_use(tmp_path, channels, bits):
    eight = UPRIGHT[..., :channels].copy()
    eight[0, 0] = 255
    deep = (eight.astype(np.uint16) << (bits - 8)) | ((1 << (bits - 8)) - 1)
    seen = read_picture(write_png16(tmp_path / 'a.png', deep))
    assert np.array_equal(seen, np.broadcast_to(eight[..., ::-1], UPRIGHT.shape))


def test_deep_picture_with_alpha(tmp_path):
    deep = np.full((3, 4, 4), 0xFFFF, np.uint16)
    deep[..., 0] = 0x8000
    deep[0, 0, 3] = 0
    seen = read_picture(write_png16(tmp_path / 'a.png', deep))
    assert seen[0, 0].tolist() == [255, 255, 255]
    assert seen[1, 1].tolist() == [255, 255, 128]


def test_deep_tiff_keeps_its_orientation(tmp_path):
    deep = STORED[6](UPRIGHT)[..., 0].astype(np.uint16) << 8
    deep[0, 0] = 0xFF00
    path = tmp_path / 'a.tiff'
    image = Image.fromarray(np.ascontiguousarray(deep))
    image.save(path, tiffinfo={0x0112: 6})
    seen = read_picture(path)
    assert seen.shape == (4, 6, 3)
    assert np.array_equal(seen[1, :-1, 0], UPRIGHT[1, :-1, 0])


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('empty.jpg', b'', 'empty'),
        ('text.jpg', b'this is no picture', 'no picture that can be decoded'),
        ('missing.jpg', None, 'No such file'),
    ],
)
def test_files_that_are_no_pictures(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=reason):
        read_picture(tmp_path / name)


@pytest.mark.parametrize('name', ['a.jpg', 'a.png'])
def test_truncated_picture_is_not_half_used(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = save(tmp_path / name, noise).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableError, match='truncated'):
        read_picture(tmp_path / name)


def test_float_pixels_are_refused_with_advice(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / 'a.tiff')
    with pytest.raises(UnreadableError, match='no integers of 8 or 16 bits: convert'):
        read_picture(tmp_path / 'a.tiff')


def test_sources_of_folders_files_and_patterns(tmp_path):
    for name in ('b.jpg', 'a.PNG', 'c.mp4', 'notes.txt', '.hidden.jpg', 'sub/d.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    (tmp_path / 'nothing').mkdir()

    def names(*inputs):
        sources, problems = find_sources([str(tmp_path / i) for i in inputs])
        return [s.path.name for s in sources], [p.reason for p in problems]

    assert names('') == (['a.PNG', 'b.jpg', 'c.mp4'], [])
    assert names('**/*.jpg') == (['b.jpg', 'd.jpg'], [])
    assert names('b.jpg', '', 'sub/../b.jpg')[0] == ['b.jpg', 'a.PNG', 'c.mp4']
    assert names('notes.txt')[0] == ['notes.txt']
    found, reasons = names('nothing', '*.gif', 'gone.jpg', 'b.jpg')
    assert found == ['b.jpg']
    assert reasons == [
        'the folder holds no picture and no video',
        'the pattern matches no file',
        'there is no such file, folder or pattern',
    ]


def test_sources_of_one_name_get_names_of_their_own(tmp_path):
    files = ['x/a.jpg', 'y/a.jpg', 'y/a_2.jpg', 'z/A.png', 'z/a.mp4']
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b'x')
    sources, _ = find_sources([str(tmp_path / name) for name in files])
    assert [source.name for source in sources] == ['a', 'a_3', 'a_2', 'A_4', 'a_5']


def frames_of(path):
    """Return the indices of the frames that were read, and what was said at the end."""
    indices = []
    try:
        for index, image in Video(path).frames():
            assert abs(image.mean() - 20 * index) < 6, 'a frame came under another index'
            indices.append(index)
    except UnreadableError as error:
        return indices, str(error)
    return indices, None


def test_video_frames_in_order(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8)
    assert frames_of(path) == (list(range(8)), None)
    assert Video(path).fps == 10


def test_corrupt_frame_is_left_out_and_told(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8, corrupt=[3])
    assert frames_of(path) == ([0, 1, 2, 4, 5, 6, 7], 'corrupt frames left out: 3 of 8')


def test_video_that_ends_early_is_told(tmp_path):
    path = write_video(tmp_path / 'a.avi', 8, corrupt=[2, 5, 6, 7])
    assert frames_of(path) == ([0, 1, 3, 4], 'corrupt frames left out: 2, 5 to 7 of 8')


def test_videos_without_a_frame(tmp_path):
    (tmp_path / 'empty.mp4').write_bytes(b'')
    write_video(tmp_path / 'header.avi', 0)
    write_video(tmp_path / 'broken.avi', 2, corrupt=[0, 1])
    for name, reason in (
        ('missing.mp4', 'no such file'),
        ('empty.mp4', 'empty'),
        ('header.avi', 'no frame|no video'),
        ('broken.avi', 'no frame|no video'),
    ):
        with pytest.raises(UnreadableError, match=reason):
            list(Video(tmp_path / name).frames())


def shot(path, frame=None):
    return Shot(Source(path, path.stem), np.zeros((60, 80, 3), np.uint8), frame)


def test_picture_ids_are_the_data_sets_the_names_or_a_count(tmp_path):
    numbered = [shot(tmp_path / f'{i:012d}.jpg') for i in (785, 40083)]
    others = [shot(tmp_path / name) for name in ('a.jpg', '7.jpg')]
    assert [*map(coco.PictureIds([s.source for s in numbered]), numbered)] == [785, 40083]
    assert [*map(coco.PictureIds([s.source for s in others]), others)] == [1, 2]

    images = [
        {'id': 5, 'file_name': 'x/a.jpg'},
        {'id': 6, 'file_name': 'y/a.jpg'},
        {'id': 7, 'file_name': 'b.jpg'},
        {'id': 8, 'file_name': 'v.mp4', 'frame_id': 3},
    ]
    ids = coco.PictureIds([], {'images': images})
    assert ids(shot(tmp_path / 'y' / 'a.jpg')) == 6
    assert ids(shot(tmp_path / 'elsewhere' / 'b.jpg')) == 7
    assert ids(shot(tmp_path / 'v.mp4', 3)) == 8
    for path, frame, message in (
        (tmp_path / 'a.jpg', None, 'any of several'),
        (tmp_path / 'c.jpg', None, 'not among'),
        (tmp_path / 'v.mp4', 4, 'not among'),
    ):
        with pytest.raises(LookupError, match=message):
            ids(shot(path, frame))


def test_category_ids():
    names = ['person'] + [str(i) for i in range(78)] + ['toothbrush']
    ids = coco.category_ids(names)
    assert (ids[0], ids[11], ids[79], len(set(ids))) == (1, 13, 90, 80)
    assert coco.category_ids(['person', 'box']) == [1, 2]
    data_set = {'categories': [{'id': 9, 'name': 'box'}, {'id': 4, 'name': 'person'}]}
    assert coco.category_ids(['person', 'box'], data_set) == [4, 9]
    with pytest.raises(UserError, match="no category 'ball'"):
        coco.category_ids(['ball'], data_set)


def test_boxes_of_a_data_set_leave_out_what_is_no_person(tmp_path):
    path = tmp_path / 'boxes.json'
    person = {'image_id': 1, 'category_id': 2}
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg'}],
        'categories': [{'id': 1, 'name': 'box'}, {'id': 2, 'name': 'person'}],
        'annotations': [
            {**person, 'bbox': [10, 20, 30, 200], 'num_keypoints': 0},
            {**person, 'bbox': [10, 20, 30, 0]},
            {**person, 'bbox': [10, 20, 30, 40], 'iscrowd': 1},
            {**person, 'bbox': [500, 20, 30, 40]},
            {'image_id': 1, 'category_id': 1, 'bbox': [0, 0, 5, 5]},
        ],
    }
    path.write_text(json.dumps(content))
    boxes = coco.PeopleBoxes(path, score_thr=0.9)
    assert boxes(1, 60, 80).tolist() == [[10, 20, 40, 60, 1]]
    assert boxes(2, 60, 80).shape == (0, 5)


def test_boxes_of_detection_results(tmp_path):
    path = tmp_path / 'results.json'
    entry = {'image_id': 7, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.8}
    content = [entry, {**entry, 'score': 0.1}, {**entry, 'category_id': 3}]
    path.write_text(json.dumps(content))
    assert np.allclose(coco.PeopleBoxes(path, 0.5)(7, 60, 80), [[1, 2, 4, 6, 0.8]])
    categories = [{'id': 3, 'name': 'person'}]
    assert len(coco.PeopleBoxes(path, 0.5, categories)(7, 60, 80)) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('no json', 'is no JSON file'),
        ('{"annotations": []}', 'is no COCO data set'),
        ('[{"image_id": 1}]', 'entry 0 is no box'),
        ('[{"image_id": 1, "bbox": [1, 2]}]', 'entry 0 is no box'),
    ],
)
def test_box_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / 'boxes.json'
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        coco.PeopleBoxes(path)


def test_drawings_show_what_they_should_and_leave_the_picture_alone():
    picture = np.full((120, 160, 3), 90, np.uint8)
    masks = np.zeros((1, 120, 160), bool)
    masks[0, 40:60, 40:60] = True
    drawing = draw.draw_instances(
        picture, np.array([[30, 30, 90, 100]]), ['box 0.90'], [(0, 0, 255)], masks
    )
    assert (picture == 90).all()
    assert drawing[50, 50, 2] > 150 > drawing[50, 50, 0]
    assert drawing[100, 60].tolist() == [0, 0, 255]
    assert (drawing[110:, 100:] == 90).all()

    points = np.array([[[20, 100], [140, 100], [80, 20]]])
    shown = np.array([[True, True, False]])
    links = [(0, 1), (1, 2)]
    drawing = draw.draw_poses(
        picture, np.array([[5, 5, 150, 110]]), points, shown, links,
        [(0, 255, 0), (255, 0, 0)], [(9, 9, 9)] * 3,
    )  # fmt: skip
    assert drawing[100, 80].tolist() == [0, 255, 0]
    assert (drawing[20, 80] == 90).all(), 'an uncertain key point was drawn'
    assert (drawing[60, 110] == 90).all(), 'a link to an uncertain key point was drawn'

    classes = np.zeros((120, 160), int)
    classes[:, 80:] = 1
    drawing = draw.draw_map(picture, classes, ['a', 'b'], [(0, 0, 0), (255, 255, 255)])
    assert drawing[5, 5].tolist() == [45, 45, 45]
    assert drawing[5, -6, 0] in (172, 173)
    assert drawing[5, 79].tolist() == [0, 0, 0], 'the class should be outlined'


def test_labels_stay_inside_small_pictures():
    for x, y in ((-50, -50), (500, 500)):
        picture = np.zeros((20, 30, 3), np.uint8)
        draw.put_label(picture, 'a long name', x, y, (0, 200, 0))
        assert picture.any()


def test_colours_of_a_palette_or_distinct_ones():
    assert draw.colors([(1, 2, 3), (4, 5, 6)], 2) == [(3, 2, 1), (6, 5, 4)]
    assert len(set(draw.colors('random', 200))) > 190
    assert len(set(draw.colors([(1, 2, 3)], 5))) == 5


def test_output_refuses_to_replace(tmp_path):
    source = Source(tmp_path / 'in' / 'a.jpg', 'a')
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'pictures' / 'a.jpg').write_bytes(b'x')
    with pytest.raises(UserError, match=r'pictures/a.jpg exist.*--force'):
        Output(tmp_path, [source])
    Output(tmp_path, [source], force=True)
    Output(tmp_path, [source], pictures=False)
    with pytest.raises(UserError, match='is an input and would be replaced'):
        Output(tmp_path, [Source(tmp_path / 'pictures' / 'a.jpg', 'a')], force=True)


class Counting:
    """A task that finds as many things as the picture's mean says."""

    categories = ({'id': 1, 'name': 'thing'},)
    unit = 'things'

    def records(self, result, image_id):
        return [{'image_id': image_id, 'category_id': 1}] * result

    def draw(self, shot, result):
        return shot.image


def test_broken_off_run_leaves_whole_files(tmp_path):
    one = shot(tmp_path / 'a.jpg')
    output = Output(tmp_path / 'out', [one.source])
    with pytest.raises(KeyboardInterrupt), output.opened(list(Counting.categories)):  # noqa: PT012
        output.add(one, 1, Counting(), 2)
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / 'out' / 'predictions.json').read_text())) == 2
    images = json.loads((tmp_path / 'out' / 'images.json').read_text())['images']
    assert images == [
        {
            'id': 1,
            'file_name': one.source.path.as_posix(),
            'width': 80,
            'height': 60,
            'picture': 'pictures/a.jpg',
        }
    ]
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'images.json',
        'pictures',
        'predictions.json',
    ]


def test_run_without_a_picture_leaves_nothing(tmp_path):
    output = Output(tmp_path / 'out', [])
    with output.opened([]):
        pass
    assert list((tmp_path / 'out').iterdir()) == []


def test_output_that_can_not_be_written(tmp_path):
    (tmp_path / 'file').write_bytes(b'x')
    output = Output(tmp_path / 'file' / 'out', [])
    with pytest.raises(UserError, match='could not be written'), output.opened([]):
        pass


class Empty(Counting):
    """A task that finds nothing."""

    def __call__(self, shots):
        return [0 for _ in shots]


def test_progress_tells_how_many_how_fast_and_how_long(tmp_path):
    paths = [save(tmp_path / f'{name}.png', UPRIGHT) for name in 'abc']
    sources, _ = find_sources([str(path) for path in paths])
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    output = Output(tmp_path / 'out', sources, pictures=False)
    outcome = predict(Empty(), sources, output, coco.PictureIds(sources), 2, console)
    assert outcome.pictures == 3
    (*_, last, _) = screen.getvalue().splitlines()
    for shown in ('predicting', '3/3', '0:00:00'):
        assert shown in last


@pytest.mark.parametrize(
    ('speed', 'text'), [(12.34, '12.3/s'), (0.25, '4.0 s each'), (None, ''), (0, '')]
)
def test_rate_of_fast_and_slow_runs(speed, text):
    task = SimpleNamespace(finished_speed=None, speed=speed)
    assert RateColumn().render(task).plain == text
