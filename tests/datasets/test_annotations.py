"""Annotation files that can't be used are named, with the way out, before anything runs."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from mmuniformer.datasets.checks.annotations import check_dataset, check_outputs
from mmuniformer.errors import UserError


@pytest.fixture
def data(tmp_path):
    """A folder with one image and its annotations, and the config of a data set on it."""
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (40, 30)).save(tmp_path / 'images' / 'a.png')
    content = {
        'images': [{'id': 1, 'file_name': 'a.png', 'width': 40, 'height': 30}],
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 8, 'name': 'dog'}],
        'annotations': [
            {'id': 5, 'image_id': 1, 'category_id': 7, 'bbox': [0, 0, 9, 9], 'area': 81}
        ],
    }
    cfg = dict(data_root=str(tmp_path), ann_file='a.json', data_prefix=dict(img='images/'))
    return tmp_path, content, cfg


def write(folder, content):
    (folder / 'a.json').write_text(content if isinstance(content, str) else json.dumps(content))


def test_sound_data_passes(data):
    folder, content, cfg = data
    write(folder, content)
    check_dataset(cfg)
    check_dataset(cfg | dict(metainfo=dict(classes=('cat',))))
    (folder / 'names.txt').write_text('dog\ncat\n')
    check_dataset(cfg | dict(metainfo=dict(classes=str(folder / 'names.txt'))))
    check_dataset(dict(type='RepeatDataset', dataset=dict(datasets=[cfg])))
    check_dataset(dict(data_root='nowhere', img_suffix='.jpg'))
    check_dataset(dict(data_root='s3://bucket', ann_file='a.json'))
    del content['annotations']  # as for test images
    write(folder, content)
    check_dataset(cfg | dict(test_mode=True))


def without(content, key):
    return {k: v for k, v in content.items() if k != key}


def but_first(content, table, **changes):
    """Change fields of a table's first entry; None removes one."""
    entry = {k: v for k, v in (content[table][0] | changes).items() if v is not None}
    return content | {table: [entry, *content[table][1:]]}


BAD_FILES = {
    'empty file': (lambda c: '', r'a\.json is empty: give a COCO annotation file'),
    'no JSON': (lambda c: '{"images": [', r'a\.json is no JSON'),
    'list': (lambda c: '[]', 'has no images, annotations, categories'),
    'no categories': (lambda c: without(c, 'categories'), 'has no categories'),
    'no images in it': (lambda c: c | dict(images=[]), 'empty list of images'),
    'category': (
        lambda c: but_first(c, 'annotations', category_id=9),
        'annotation 5 has category_id 9, which is not in its categories'),
    'image': (
        lambda c: but_first(c, 'annotations', image_id=2),
        'annotation 5 has image_id 2, which is not in its images'),
    'file': (
        lambda c: but_first(c, 'images', file_name='b.png'),
        r'b\.png, named in .*a\.json, does not exist'),
    'size': (
        lambda c: but_first(c, 'images', width=80),
        r'a\.png is 40 x 30 \(width x height\), and .*a\.json says 80 x 30'),
    'image without a size': (
        lambda c: but_first(c, 'images', height=None, width=None),
        r'entry 1 \(number 0\) of images has no width, height: add it'),
    'category without an id': (
        lambda c: but_first(c, 'categories', id=None),
        r'entry \(number 0\) of categories has no id'),
    'annotation without a box': (
        lambda c: but_first(c, 'annotations', bbox=None, area=None),
        r'entry 5 \(number 0\) of annotations has no bbox, area'),
}  # fmt: skip


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('kind', BAD_FILES)
def test_bad_file_is_named(data, kind, wrapped):
    folder, content, cfg = data
    change, message = BAD_FILES[kind]
    write(folder, change(content))
    with pytest.raises(UserError, match=message):
        check_dataset(dict(dataset=dict(datasets=[cfg])) if wrapped else cfg)


def test_missing_file_is_named(data):
    folder, _, cfg = data
    with pytest.raises(UserError, match=r'a\.json: No such file .* dataset\.data_root'):
        check_dataset(cfg)


def test_unknown_class_is_named_with_those_there_are(data):
    folder, content, cfg = data
    write(folder, content)
    with pytest.raises(UserError, match=r"no category 'bird'; it has 'cat', 'dog'"):
        check_dataset(cfg | dict(metainfo=dict(classes=('cat', 'bird'))))
    with pytest.raises(UserError, match=r"metainfo\.classes='names\.txt': No such file"):
        check_dataset(cfg | dict(metainfo=dict(classes='names.txt')))


@pytest.mark.frameworks
def test_category_that_the_framework_does_not_know_is_named(data):
    pytest.importorskip('mmdet.datasets')
    folder, content, cfg = data
    cfg = cfg | dict(type='mmdet.CocoDataset')
    write(folder, content)
    check_dataset(cfg)
    content['categories'][0]['name'] = 'unicorn'
    write(folder, content)
    with pytest.raises(UserError, match=r"a\.json annotates 'unicorn'.*metainfo\.classes"):
        check_dataset(cfg)
    check_dataset(cfg | dict(metainfo=dict(classes=('dog',))))


@pytest.mark.parametrize('content', [b'', b'not an image', 'truncated'])
def test_image_that_cannot_be_decoded_is_named(data, content):
    folder, annotations, cfg = data
    write(folder, annotations)
    image = folder / 'images' / 'a.png'
    image.write_bytes(image.read_bytes()[:60] if content == 'truncated' else content)
    with pytest.raises(UserError, match=r'a\.png can not be decoded'):
        check_dataset(cfg)


@pytest.mark.parametrize('kind', ['empty', 'missing'])
def test_later_image_that_is_empty_or_missing_is_named(data, kind):
    folder, content, cfg = data
    image = content['images'][0]
    later = [image | {'id': number, 'file_name': 'a.png'} for number in range(2, 40)]
    content['images'] += [*later, image | {'id': 40, 'file_name': 'last.png'}]
    write(folder, content)
    last = folder / 'images' / 'last.png'
    if kind == 'empty':
        last.touch()
    message = {'empty': 'can not be decoded .it is empty', 'missing': 'does not exist'}[kind]
    with pytest.raises(UserError, match=rf'last\.png.* {message}'):
        check_dataset(cfg)
    last.write_bytes(b'looked at when its turn comes')
    check_dataset(cfg)


@pytest.mark.parametrize('turned', [(30, 40), (40, 30)])
def test_size_is_that_of_the_photo_as_it_is_read(data, turned):
    folder, content, cfg = data
    photo = Image.new('RGB', (40, 30))
    photo.getexif()[0x0112] = 6  # a quarter turn
    photo.save(folder / 'images' / 'a.png', exif=photo.getexif())
    write(folder, but_first(content, 'images', width=turned[0], height=turned[1]))
    if turned == (30, 40):
        return check_dataset(cfg)
    with pytest.raises(UserError, match=r'a\.png is 30 x 40 .* after its EXIF rotation.* 40 x 30'):
        check_dataset(cfg)


def test_masks_are_asked_for_where_the_pipeline_reads_them(data):
    folder, content, cfg = data
    write(folder, content)
    masks = dict(pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask=True)])
    with pytest.raises(UserError, match=r'entry 5 .* has no segmentation'):
        check_dataset(cfg | masks)
    write(folder, but_first(content, 'annotations', segmentation=[[0, 0, 9, 0, 9, 9]]))
    check_dataset(cfg | masks)


NOTHING = {
    'thin': dict(bbox=[3, 3, 0.5, 9]),
    'flat': dict(bbox=[3, 3, 9, 0]),
    'turned inside out': dict(bbox=[3, 3, -9, 9]),
    'no area': dict(area=0),
    'crowd': dict(iscrowd=1),
}


@pytest.mark.parametrize('kind', NOTHING)
def test_data_with_nothing_to_learn_are_named(data, kind):
    folder, content, cfg = data
    changed = but_first(content, 'annotations', **NOTHING[kind])
    write(folder, changed)
    with pytest.raises(UserError, match=r'a\.json has nothing to learn'):
        check_dataset(cfg)
    check_dataset(cfg | dict(test_mode=True))
    changed['annotations'] += content['annotations']
    write(folder, changed)
    check_dataset(cfg)


@pytest.fixture
def people(data):
    """The same image with one person of two key points, for MMPose."""
    folder, content, cfg = data
    content = but_first(content, 'annotations', keypoints=[3, 3, 2, 0, 0, 0], area=None)
    return folder, content, cfg | dict(data_mode='topdown', metainfo=dict(classes=('cat',)))


def test_a_person_with_one_visible_key_point_is_enough(people):
    folder, content, cfg = people
    write(folder, content)
    check_dataset(cfg)


NOBODY = {
    'no visible key point': dict(keypoints=[0] * 6),
    'none by its count': dict(num_keypoints=0),
    'no key points': dict(keypoints=None),
    'no box': dict(bbox=None),
    'box without a width': dict(bbox=[3, 3, 0, 9]),
    'box without a height': dict(bbox=[3, 3, 9, 0]),
    'crowd': dict(iscrowd=1),
}


@pytest.mark.parametrize('kind', NOBODY)
def test_data_without_a_person_to_crop_are_named(people, kind):
    folder, content, cfg = people
    write(folder, but_first(content, 'annotations', **NOBODY[kind]))
    with pytest.raises(UserError, match=r'a\.json has no person to crop'):
        check_dataset(cfg)
    both = but_first(content, 'annotations', **NOBODY[kind])
    both['annotations'] += content['annotations']
    write(folder, both)
    check_dataset(cfg)


def test_missing_file_of_detected_boxes_is_named(people):
    folder, content, cfg = people
    write(folder, content)
    with pytest.raises(UserError, match=r'det\.json, the detected boxes.*bbox_file=None'):
        check_dataset(cfg | dict(bbox_file=str(folder / 'det.json')))
    (folder / 'det.json').write_text('[]')
    check_dataset(cfg | dict(bbox_file=str(folder / 'det.json')))


@pytest.mark.frameworks
def test_another_number_of_key_points_is_named(people):
    pytest.importorskip('mmpose.datasets')
    folder, content, cfg = people
    write(folder, content)
    with pytest.raises(UserError, match=r'annotation 5 has 6 numbers .*CocoDataset 17 key points'):
        check_dataset(cfg | dict(type='mmpose.CocoDataset', metainfo=None))


@pytest.mark.frameworks
@pytest.mark.parametrize('outputs', [17, 5])
def test_another_number_of_outputs_is_named(outputs):
    pytest.importorskip('mmpose.datasets')
    model = SimpleNamespace(head=SimpleNamespace(out_channels=outputs))
    cfg = dict(dataset=dict(type='mmpose.CocoDataset', data_mode='topdown'))
    if outputs == 17:
        return check_outputs(cfg, model)
    with pytest.raises(UserError, match=r'17 key points and model\.head\.out_channels is 5'):
        check_outputs(cfg, model)


def test_folders_of_images_are_checked_as_the_data_set_names_them(tmp_path):
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path='images'))
    with pytest.raises(UserError, match='which is no folder'):
        check_dataset(dict(dataset=cfg))
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a_leftImg8bit.png').touch()
    with pytest.raises(UserError, match=r'no images that end in \.jpg'):
        check_dataset(cfg)
    check_dataset(cfg | dict(img_suffix='_leftImg8bit.png'))


@pytest.mark.frameworks
def test_suffix_is_that_of_the_data_sets_type(tmp_path):
    pytest.importorskip('mmseg.datasets')
    (tmp_path / 'a_leftImg8bit.png').touch()
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path=''))
    check_dataset(cfg | dict(type='mmseg.CityscapesDataset'))
    with pytest.raises(UserError, match=r'no images that end in \.jpg'):
        check_dataset(cfg | dict(type='mmseg.ADE20KDataset'))


def test_reason_stands_alone(data):
    """What the reader of a traceback finds below it is the message, with no other error above."""
    folder, _, cfg = data
    write(folder, '{')
    with pytest.raises(UserError) as caught:
        check_dataset(cfg)
    assert caught.value.__suppress_context__
