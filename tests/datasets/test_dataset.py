"""Data that cannot be used are named, with the way out, before anything runs; sound data pass."""

import gc
import json
import pickle
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import ConfigDict
from PIL import Image

from mmuniformer.datasets.checks.dataset import check_dataset, checked_on_load
from mmuniformer.datasets.checks.detection import run_lengths
from mmuniformer.datasets.checks.pose import check_outputs
from mmuniformer.errors import DataError

pytestmark = pytest.mark.frameworks
WIDTH, HEIGHT = 40, 30
BOX = dict(bbox=[2, 2, 20, 20], area=400)
POLYGON = dict(segmentation=[[2, 2, 20, 2, 20, 20]])
FLAT = [5, 5, 2]


@pytest.fixture(autouse=True)
def frameworks():
    """The three registries."""
    for name in ('mmdet', 'mmpose', 'mmseg'):
        pytest.importorskip(f'{name}.datasets')


@pytest.fixture
def write(tmp_path):
    """Write an image and annotations; return the config of a dataset on them."""

    def work(type, content, **cfg):
        (tmp_path / 'images').mkdir(exist_ok=True)
        if not (tmp_path / 'images' / '1.jpg').exists():
            Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'images' / '1.jpg')
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / 'a.json').write_text(text)
        prefix = dict(img='images/')
        return dict(
            type=type, data_root=str(tmp_path), ann_file='a.json', data_prefix=prefix, **cfg
        )

    return work


def coco(annotation=None, **tables):
    content = {
        'images': [{'id': 1, 'file_name': '1.jpg', 'width': WIDTH, 'height': HEIGHT}],
        'categories': [{'id': 7, 'name': 'cat'}, {'id': 8, 'name': 'dog'}],
        'annotations': [{'id': 5, 'image_id': 1, 'category_id': 7, **BOX, **(annotation or {})}],
    }
    return content | tables


def people(count=17, **annotation):
    """As CrowdPose and AP-10K have it: no area, no segmentation, no number of keypoints."""
    found = coco(dict(keypoints=FLAT * count) | annotation)
    found['annotations'][0].pop('area')
    return found


def samples(cfg, steps):
    """Build a dataset by its framework and run a pipeline on its first sample."""
    from mmengine.registry import DATASETS

    registry = DATASETS.switch_scope_and_registry(cfg['type'].split('.')[0])
    with registry as found:
        dataset = found.build({**cfg, 'pipeline': steps})
        return dataset[0]


DET = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
MASKS = [DET[0], dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
POSE = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale')]
SOUND = {
    'COCO': ('mmdet.CocoDataset', coco(), DET),
    'COCO masks': ('mmdet.CocoDataset', coco(POLYGON), MASKS),
    'COCO without masks': ('mmdet.CocoDataset', coco(dict(segmentation=[])), DET),
    'COCO people': ('mmpose.CocoDataset', people() | dict(categories=[]), POSE),
    'CrowdPose': ('mmpose.CrowdPoseDataset', people(14), POSE),
    'AP-10K': ('mmpose.AP10KDataset', people(17), POSE),
}


@pytest.mark.parametrize('kind', SOUND)
def test_sound_data_pass_as_the_framework_reads_them(kind, write):
    name, content, steps = SOUND[kind]
    cfg = write(name, content, pipeline=steps)
    assert samples(cfg, steps)['img'].shape == (HEIGHT, WIDTH, 3)
    check_dataset(cfg)


def image(**changes):
    return coco(images=[dict(id=1, file_name='1.jpg', width=WIDTH, height=HEIGHT) | changes])


BAD_BOX = r'annotation 5: bbox is .*; give 4 finite numbers'
BROKEN = {
    'empty file': ('', r'a\.json cannot be read as JSON'),
    'no JSON': ('{"images": [', r'a\.json cannot be read as JSON'),
    'nested': ('[' * 100_000, r'a\.json cannot be read as JSON'),
    'list': ([], 'no list of image objects'),
    'no categories': (coco(categories=None), 'no list of category objects'),
    'annotations null': (coco(annotations=None), 'no list of annotation objects'),
    'annotations text': (coco(annotations=['a']), 'no list of annotation objects'),
    'no images': (coco(images=[]), 'empty list of images'),
    'category': (coco(dict(category_id=9)), 'annotation 5: category_id is 9'),
    'image': (coco(dict(image_id=2)), 'image_id is 2; give an id in the file'),
    'image list': (coco(dict(image_id=[1])), r'image_id is \[1\]'),
    'no box': (coco(annotations=[dict(id=5, image_id=1, category_id=7)]), 'area is missing; give'),
    'two annotations': (coco(annotations=coco()['annotations'] * 2), 'id 5 of annotation occurs 2'),
    'two images': (coco(images=coco()['images'] * 2), 'id 1 of image occurs 2'),
    'two categories': (coco(categories=[{'id': 7, 'name': 'cat'}] * 2), 'id 7 of category occurs'),
    'file name': (image(file_name=3), 'image 1: file_name is 3; give a value of type str'),
    'width': (image(width='40'), "image 1: width is '40'; give a finite number"),
    'width 0': (image(width=0), 'image 1: width is 0; give a number of pixels'),
    'no width': (coco(images=[dict(id=1, file_name='1.jpg')]), 'image 1: width is missing'),
    'other file': (image(file_name='2.jpg'), r'2\.jpg, named in .*a\.json, cannot be read'),
    'other size': (image(width=80), r'1\.jpg is 40 x 30 \(width x height.*a\.json says 80 x 30'),
    'box of 3': (coco(dict(bbox=[1, 2, 3])), BAD_BOX),
    'box of 5': (coco(dict(bbox=[1, 2, 3, 4, 5])), BAD_BOX),
    'box of text': (coco(dict(bbox=['1', '2', '9', '9'])), BAD_BOX),
    'box null': (coco(dict(bbox=None)), BAD_BOX),
    'box NaN': (coco(dict(bbox=[float('nan'), 2, 9, 9])), BAD_BOX),
    'area': (coco(dict(area='9')), "annotation 5: area is '9'"),
}
BROKEN_PEOPLE = {
    'keypoint text': ('CocoDataset', people(keypoints=['a'] * 51),
                      'annotation 5: keypoints is .* give 51 finite'),
    'keypoints null': ('CocoDataset', people(keypoints=None), 'annotation 5: keypoints is'),
    'other number': ('CocoDataset', people(14), '14 keypoints a person, .*CocoDataset 17'),
    'no triples': ('CocoDataset', people(keypoints=[1] * 50), 'give 48 finite numbers'),
    'CrowdPose box': ('CrowdPoseDataset', people(14, bbox=[1, 2]), BAD_BOX),
    'AP-10K number': ('AP10KDataset', people(5), '5 keypoints a person, .*AP10K.* 17'),
    'image id': ('CocoDataset', people() | dict(images=image(id='a')['images']),
                 r"id is 'a'; give a value of type int or float"),
    'no width': ('CocoDataset', people() | dict(images=[{'id': 1, 'file_name': '1.jpg'}]),
                 'image 1: width is missing'),
}  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        *(('mmdet.CocoDataset', *case) for case in BROKEN.values()),
        *((f'mmpose.{name}', *case) for name, *case in BROKEN_PEOPLE.values()),
    ],
    ids=[*BROKEN, *(f'people: {name}' for name in BROKEN_PEOPLE)],
)
def test_broken_data_are_named(name, content, message, write, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        check_dataset(dict(type='ConcatDataset', datasets=[write(name, content)]))
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).endswith('set check_data=False in the config.')
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    with pytest.raises(DataError) as loading:
        build(checked_on_load(dict(type='RepeatDataset', times=1, dataset=write(name, content))))
    assert str(loading.value) == str(caught.value)


BAD_MASKS = {
    'empty': [],
    'null': None,
    'text': 'a',
    'flat': [2, 2, 20, 2, 20, 20],
    'odd': [[2, 2, 20, 2, 20]],
    'text in it': [[2, 2, 20, 2, 20, '20']],
    'null in it': [[2, 2, 20, 2, 20, None]],
    'NaN': [[2, 2, 20, 2, 20, float('nan')]],
    'far': [[2, 2, 20, 2, 20, 1e9]],
    'size of RLE': {'size': [WIDTH, HEIGHT], 'counts': [WIDTH * HEIGHT]},
    'sum of RLE': {'size': [HEIGHT, WIDTH], 'counts': [9]},
    'negative RLE': {'size': [HEIGHT, WIDTH], 'counts': [WIDTH * HEIGHT + 9, -9]},
    'halves in RLE': {'size': [HEIGHT, WIDTH], 'counts': [0.5, WIDTH * HEIGHT - 0.5]},
    'sum of codes': {'size': [HEIGHT, WIDTH], 'counts': 'k36h00'},
    'codes that go on': {'size': [HEIGHT, WIDTH], 'counts': '`U1P'},
    'other characters': {'size': [HEIGHT, WIDTH], 'counts': '~ü\0'},
    'a long number': {'size': [HEIGHT, WIDTH], 'counts': 'P' * 40 + '0'},
    'long outline': [[1e6, -1e6, -1e6, 1e6] * 9],
    'no RLE': {'size': [HEIGHT, WIDTH]},
}


@settings(derandomize=True, deadline=None, database=None)
@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.integers(0, 9000)), st.integers(1, 9))
def test_codes_of_masks_are_read(height, width, starts, length):
    mask_of = pytest.importorskip('pycocotools.mask')
    mask = np.zeros(height * width, np.uint8)
    for start in starts:
        mask[start : start + length] = 1
    codes = mask_of.encode(np.asfortranarray(mask.reshape(height, width, order='F')))
    runs = run_lengths(codes['counts'].decode())
    np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask)


@pytest.mark.parametrize('kind', BAD_MASKS)
def test_bad_masks_are_named_where_they_are_loaded(kind, write):
    content = coco(dict(segmentation=BAD_MASKS[kind]))
    content['annotations'].append(content['annotations'][0] | POLYGON | dict(id=6, category_id=8))
    with pytest.raises(DataError, match=r'a\.json: annotation 5: segmentation is .*; give'):
        check_dataset(write('mmdet.CocoDataset', content, pipeline=MASKS))
    check_dataset(write('mmdet.CocoDataset', content, pipeline=DET))
    only = dict(classes=('dog',))  # mmdet leaves the bad one out
    check_dataset(write('mmdet.CocoDataset', content, pipeline=MASKS, metainfo=only))
    content['annotations'][0]['area'] = 0  # here, too
    check_dataset(write('mmdet.CocoDataset', content, pipeline=MASKS))


def test_masks_of_two_points_pass_unless_all_are(write):
    content = coco(dict(segmentation=[[2, 2, 20, 20]]))
    with pytest.raises(DataError, match=r'a\.json has nothing to learn'):
        check_dataset(write('mmdet.CocoDataset', content, pipeline=MASKS))
    content['annotations'].append(content['annotations'][0] | POLYGON | dict(id=6))
    check_dataset(write('mmdet.CocoDataset', content, pipeline=MASKS))
    rle = {'size': [HEIGHT, WIDTH], 'counts': [100, WIDTH * HEIGHT - 100]}
    check_dataset(write('mmdet.CocoDataset', coco(dict(segmentation=rle)), pipeline=MASKS))


@pytest.mark.parametrize(
    'change',
    [
        dict(bbox=[3, 3, 0.5, 9]),
        dict(bbox=[3, 3, 9, 0]),
        dict(bbox=[3, 3, -9, 9]),
        dict(bbox=[90, 3, 9, 9]),
        dict(area=0),
        dict(iscrowd=1),
    ],
)
def test_data_with_nothing_to_learn_are_named(change, write):
    content = coco(change)
    with pytest.raises(DataError, match=r'a\.json has nothing to learn'):
        check_dataset(write('mmdet.CocoDataset', content))
    check_dataset(write('mmdet.CocoDataset', content, test_mode=True))
    content['annotations'] += [coco()['annotations'][0] | dict(id=6)]
    check_dataset(write('mmdet.CocoDataset', content))


def test_annotations_that_mmdet_ignores_may_be_as_they_like(write):
    content = coco()
    content['annotations'] += [dict(id=6, image_id=1, category_id=7, ignore=1, bbox=None)]
    check_dataset(write('mmdet.CocoDataset', content))


@pytest.mark.parametrize('test_mode', [False, True])
def test_unlabeled_and_test_images_need_no_annotations(test_mode, write):
    content = coco()
    del content['annotations']
    check_dataset(write('mmdet.CocoDataset', content, test_mode=test_mode))


def test_classes_are_compared_with_the_file(write, tmp_path):
    def cfg(classes, content=None):
        return write('mmdet.CocoDataset', content or coco(), metainfo=dict(classes=classes))

    check_dataset(cfg(('cat',)))
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    check_dataset(cfg(str(tmp_path / 'names.txt')))
    with pytest.raises(DataError, match=r"one category 'bird', and has 'cat', 'dog'"):
        check_dataset(cfg(('cat', 'bird')))
    with pytest.raises(DataError, match=r"metainfo\.classes='gone\.txt': No such file"):
        check_dataset(cfg('gone.txt'))
    content = coco(categories=[{'id': 7, 'name': 'unicorn'}])
    with pytest.raises(DataError, match=r"a\.json annotates 'unicorn'.*metainfo\.classes"):
        check_dataset(write('mmdet.CocoDataset', content))


def test_categories_of_one_name_are_named(write):
    content = coco(categories=[{'id': n, 'name': 'cat'} for n in (0, 7)])
    cfg = write('mmdet.CocoDataset', content, metainfo=dict(classes=('cat',)))
    assert samples(cfg, DET)['gt_bboxes_labels'].tolist() == [1]  # beyond the only class
    with pytest.raises(DataError, match="one category 'cat', and has 'cat', 'cat'"):
        check_dataset(cfg)


def test_classes_in_another_order_than_in_the_file_are_said(write, monkeypatch):
    said = lines(monkeypatch, 'detection')
    check_dataset(write('mmdet.CocoDataset', coco(), metainfo=dict(classes=('cat', 'dog'))))
    assert not said
    check_dataset(write('mmdet.CocoDataset', coco(), metainfo=dict(classes=('dog', 'cat'))))
    assert len(said) == 1
    assert 'another order' in said[0]


def lines(monkeypatch, module):
    """What is logged from now on."""
    said = []
    monkeypatch.setattr(
        f'mmuniformer.datasets.checks.{module}.print_log', lambda text, *_: said.append(text)
    )
    return said


OTHERS = (
    'mmdet.CocoPanopticDataset',
    'mmdet.LVISV1Dataset',
    'mmdet.YouTubeVISDataset',
    'mmpose.CocoWholeBodyDataset',
    'mmpose.MpiiDataset',
    'mmpose.WFLWDataset',
    'Unheard',
)


def test_what_is_not_known_passes_with_one_line(write, monkeypatch):
    from mmdet.datasets import CocoDataset

    class OwnFormat(CocoDataset):
        def load_data_list(self):
            return []

    own = type('OwnClasses', (CocoDataset,), dict(METAINFO=dict(classes=('unicorn',))))
    said = lines(monkeypatch, 'dataset')
    check_dataset(write(OwnFormat, 'not JSON'))
    for name in OTHERS:
        check_dataset(write(name, ''))
    check_dataset(write('mmdet.CocoDataset', '') | dict(data_root='s3://bucket'))
    remote = dict(backend_args=dict(backend='petrel'))
    check_dataset(write('mmdet.CocoDataset', '', **remote))
    check_dataset(write('mmpose.CocoDataset', '', pipeline=[dict(type='LoadImage', **remote)]))
    assert len(said) == len(OTHERS) + 4
    assert said[0].startswith('OwnFormat is not checked before the run')
    with pytest.raises(DataError, match="annotates 'cat'"):
        check_dataset(ConfigDict(write(own, coco())))


@pytest.mark.parametrize('content', [b'', b'not an image', 'truncated'])
def test_image_that_cannot_be_decoded_is_named(content, write, tmp_path):
    cfg = write('mmdet.CocoDataset', coco())
    image = tmp_path / 'images' / '1.jpg'
    image.write_bytes(image.read_bytes()[:400] if content == 'truncated' else content)
    with pytest.raises(DataError, match=r'1\.jpg, named in .* cannot be read'):
        check_dataset(cfg)


@pytest.mark.parametrize('outside', [True, False])
def test_files_outside_the_folder_are_read_and_said(outside, write, tmp_path, monkeypatch):
    said = lines(monkeypatch, 'images')
    (tmp_path / 'images' / 'a..b').mkdir(parents=True)
    for file in (tmp_path / '2.jpg', tmp_path / 'images' / 'a..b' / '2.jpg'):
        Image.new('RGB', (WIDTH, HEIGHT)).save(file)
    name = '../2.jpg' if outside else 'a..b/2.jpg'
    check_dataset(write('mmdet.CocoDataset', image(file_name=name)))
    folder = tmp_path / 'images'
    line = f"names 1 files outside {folder}/, such as '../2.jpg': they are read from there"
    assert said == ([f'{tmp_path}/a.json {line}'] if outside else [])


def test_later_images_are_not_looked_at(write):
    image = coco()['images'][0]
    later = [image | {'id': n, 'file_name': f'{"gone" if n > 16 else 1}.jpg'} for n in range(1, 40)]
    check_dataset(write('mmdet.CocoDataset', coco(images=later)))
    with pytest.raises(DataError, match=r'gone\.jpg'):
        check_dataset(write('mmdet.CocoDataset', coco(images=[later[0], *later[-2:]])))


@pytest.mark.parametrize('turned', [(30, 40), (40, 30)])
def test_size_is_that_of_the_photo_as_it_is_read(turned, write, tmp_path):
    image = dict(id=1, file_name='1.jpg', width=turned[0], height=turned[1])
    cfg = write('mmdet.CocoDataset', coco(images=[image]))
    photo = Image.new('RGB', (40, 30))
    photo.getexif()[0x0112] = 6  # a quarter turn
    photo.save(tmp_path / 'images' / '1.jpg', exif=photo.getexif())
    if turned == (30, 40):
        return check_dataset(cfg)
    with pytest.raises(DataError, match=r'1\.jpg is 30 x 40 .* after its EXIF rotation.* says 40'):
        check_dataset(cfg)


@pytest.fixture
def parses(monkeypatch):
    """Whether garbage was collected, for each file in JSON that is parsed from now on."""
    found = []
    for name in ('load', 'loads'):
        parse = getattr(json, name)

        def count(source, *args, parse=parse, **options):
            found.extend([gc.isenabled()] * (parse.__name__ == 'loads'))
            return parse(source, *args, **options)

        count.__name__ = name
        monkeypatch.setattr(json, name, count)
    return found


def build(cfg):
    from mmengine.registry import DATASETS

    dataset = DATASETS.build(cfg)
    dataset.full_init()
    return dataset


def test_a_file_is_parsed_once_without_collections(write, parses):
    cfg = write('mmdet.CocoDataset', coco(POLYGON), pipeline=MASKS)
    check_dataset(dict(type='RepeatDataset', dataset=cfg))
    assert parses == [False]
    assert gc.isenabled()


PARSED_ONCE = {
    'det': ('mmdet.CocoDataset', coco(POLYGON), {}),
    'lazy': ('mmdet.CocoDataset', coco(POLYGON), dict(lazy_init=True)),
    'pose': ('mmpose.CocoDataset', people(), {}),
    'bottom-up': ('mmpose.CocoDataset', people(), dict(data_mode='bottomup')),
}


@pytest.mark.parametrize('case', PARSED_ONCE)
def test_the_check_and_the_framework_parse_a_file_once(case, write, parses):
    name, content, options = PARSED_ONCE[case]
    plain = build(write(name, content, **options))
    parses.clear()
    cfg = dict(type='ConcatDataset', datasets=[write(name, content, **options)])
    dataset = build(checked_on_load(cfg)).datasets[0]
    assert parses == [False]
    assert gc.isenabled()
    assert type(dataset) is type(plain)  # nothing of the check stays
    assert vars(dataset).keys() == vars(plain).keys()
    assert len(pickle.loads(pickle.dumps(dataset))) == len(plain) == 1
    assert str(dataset.get_data_info(0)) == str(plain.get_data_info(0))


def test_errors_that_no_check_explains_stay(write):
    from mmdet.datasets import CocoDataset

    class Failing(CocoDataset):
        def filter_data(self):
            raise ZeroDivisionError('a bug')

    with pytest.raises(ZeroDivisionError, match='a bug'):
        build(checked_on_load(write(Failing, coco())))


@pytest.mark.parametrize(
    'change',
    [
        dict(keypoints=[0] * 51),
        dict(num_keypoints=0),
        dict(keypoints=[]),
        dict(bbox=[3, 3, 0, 9]),
        dict(iscrowd=1),
    ],
)
def test_data_without_a_person_to_crop_are_named(change, write):
    content = people(**change)
    with pytest.raises(DataError, match=r'a\.json has no person to crop'):
        check_dataset(write('mmpose.CocoDataset', content))
    check_dataset(write('mmpose.CocoDataset', content, test_mode=True, data_mode='bottomup'))
    content['annotations'] += [people()['annotations'][0] | dict(id=6)]
    check_dataset(write('mmpose.CocoDataset', content))


DETECTED = {'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'score': 0.5}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([DETECTED, {'category_id': 2}], None),
        ([{**DETECTED, 'bbox': [1, 1, 9, 9, 0.5]}], None),  # mmpose takes the first four
        ({'annotations': [DETECTED]}, 'has no list of box objects'),
        ([{**DETECTED, 'category_id': 2}], 'no box with category_id 1'),
        ([{**DETECTED, 'image_id': 77}], 'number 0: image_id is 77'),
        ([{**DETECTED, 'bbox': [1, 1]}], 'number 0: bbox'),
        ([{**DETECTED, 'score': None}], 'number 0: score'),
    ],
)
def test_detected_boxes_are_those_of_the_images(write, tmp_path, content, message):
    (tmp_path / 'det.json').write_text(json.dumps(content))
    boxes = dict(bbox_file=str(tmp_path / 'det.json'), test_mode=True)
    cfg = write('mmpose.CocoDataset', people(), **boxes)
    if message is None:
        check_dataset(cfg)
    else:
        with pytest.raises(DataError, match=rf'det\.json.*{message}'):
            check_dataset(cfg)


def test_missing_file_of_detected_boxes_is_named(write, tmp_path):
    boxes = dict(bbox_file=str(tmp_path / 'det.json'), test_mode=True)
    cfg = write('mmpose.CocoDataset', people(num_keypoints=0), **boxes)
    with pytest.raises(
        DataError, match=r'det\.json does not exist: set dataset\.bbox_file .* or None'
    ):
        check_dataset(cfg)
    (tmp_path / 'det.json').write_text('[]')
    check_dataset(cfg)


def test_missing_annotations_are_named(write, tmp_path):
    cfg = write('mmdet.CocoDataset', coco())
    (tmp_path / 'a.json').unlink()
    with pytest.raises(DataError, match=r'a\.json .*No such file .* dataset\.data_root'):
        check_dataset(cfg)


# --- Pascal VOC ---------------------------------------------------------------------------------

XML = (
    '<annotation><size><width>{}</width><height>30</height></size><object><name>{}</name>'
    '<bndbox><xmin>2</xmin><ymin>{}</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object>'
    '</annotation>'
)


CAT = XML.format(WIDTH, 'cat', 2)


@pytest.fixture
def voc(tmp_path):
    """A Pascal VOC dataset of one image; its XML file may be changed."""

    def work(text=CAT):
        for name in ('JPEGImages', 'Annotations'):
            (tmp_path / 'VOC2007' / name).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (WIDTH, HEIGHT)).save(tmp_path / 'VOC2007' / 'JPEGImages' / '1.jpg')
        (tmp_path / 'VOC2007' / 'Annotations' / '1.xml').write_text(text)
        (tmp_path / 'train.txt').write_text('1\n')
        prefix = dict(sub_data_root='VOC2007/')
        return dict(
            type='mmdet.VOCDataset',
            data_root=str(tmp_path),
            ann_file='train.txt',
            data_prefix=prefix,
        )

    return work


def test_pascal_voc_passes(voc):
    assert samples(voc(), DET)['gt_bboxes_labels'].tolist() == [7]
    check_dataset(voc())
    check_dataset(voc(XML.format(WIDTH, 'unicorn', 2)) | dict(metainfo=dict(classes=('cat',))))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('<annotation>', r'1\.xml cannot be read as Pascal VOC'),
        (XML.format(WIDTH, 'unicorn', 2), r"1\.xml annotates 'unicorn'"),
        (XML.format(WIDTH, 'cat', 'two'), r"1\.xml cannot be read as Pascal VOC .*.*'two'"),
        (XML.format(WIDTH, 'cat', 'nan'), r'1\.xml cannot be read as Pascal VOC .*.*NaN'),
        (CAT.replace('bndbox', 'polygon'), r'1\.xml cannot be read as Pascal VOC'),
        (XML.format(80, 'cat', 2), r'1\.jpg is 40 x 30'),
    ],
)
def test_broken_pascal_voc_is_named(text, message, voc):
    with pytest.raises(DataError, match=message):
        check_dataset(voc(text))


def test_list_without_images_is_named(voc, tmp_path):
    cfg = voc()
    (tmp_path / 'train.txt').write_text('\n')
    with pytest.raises(DataError, match=r'train\.txt cannot be read .*no names of images'):
        check_dataset(cfg)


# --- outputs of pose estimators -----------------------------------------------------------------


def convert(count):
    return [dict(type='mmpose.KeypointConverter', num_keypoints=count, mapping=[(0, 0)])]


CONVERTED = dict(type='mmpose.AicDataset', pipeline=convert(17))
COMBINED = dict(
    type='mmpose.CombinedDataset',
    metainfo=dict(from_file='configs/_base_/datasets/coco.py'),
    datasets=[dict(type='mmpose.CocoDataset'), CONVERTED],
)
SIMCC = dict(type='SimCCLabel', input_size=(64, 64), sigma=6.0, simcc_split_ratio=2.0)
OUTPUTS = {
    'heat maps': (
        dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=2),
        17,
    ),
    'UDP combined': (
        dict(
            type='UDPHeatmap',
            input_size=(64, 64),
            heatmap_size=(16, 16),
            heatmap_type='combined',
            sigma=2,
        ),
        51,
    ),
    'SimCC': (SIMCC, 17),
}


def estimator(codec, outputs):
    from mmpose.registry import KEYPOINT_CODECS

    head = types.SimpleNamespace(out_channels=outputs, decoder=KEYPOINT_CODECS.build(codec))
    return types.SimpleNamespace(head=head)


@pytest.mark.parametrize('cfg', [dict(type='mmpose.CocoDataset'), COMBINED, CONVERTED])
@pytest.mark.parametrize('kind', OUTPUTS)
def test_outputs_are_compared_with_the_keypoints_of_samples(kind, cfg):
    codec, outputs = OUTPUTS[kind]
    check_outputs(dict(type='RepeatDataset', dataset=cfg), estimator(codec, outputs))
    with pytest.raises(
        DataError,
        match=rf'17 keypoints.*head\.out_channels has to be {outputs}; it is {outputs + 1}',
    ):
        check_outputs(dict(type='RepeatDataset', dataset=cfg), estimator(codec, outputs + 1))


def test_sub_dataset_without_its_converter_is_named():
    combined = COMBINED | dict(datasets=[dict(type='mmpose.AicDataset')])
    with pytest.raises(DataError, match=r'AicDataset has 14 keypoints'):
        check_outputs(combined, estimator(SIMCC, 17))
    check_outputs(combined | dict(pipeline=convert(17)), estimator(SIMCC, 17))


def test_heads_that_are_not_counted_in_keypoints_pass():
    for head in (dict(out_channels=(3, 4)), dict(out_channels=None), dict(num_joints=17), dict()):
        model = types.SimpleNamespace(head=types.SimpleNamespace(decoder=None, **head))
        check_outputs(dict(type='mmpose.CrowdPoseDataset'), model)
    model = types.SimpleNamespace()
    check_outputs(dict(type='mmdet.CocoDataset'), model)


def test_outputs_of_datasets_that_say_nothing_pass():
    class Plain(torch.utils.data.Dataset):
        pass

    check_outputs(dict(type=Plain), estimator(SIMCC, 17))


def test_file_with_more_keypoints_than_a_converter_takes_passes(write):
    check_dataset(write('mmpose.CocoDataset', people(133), pipeline=convert(17)))


# --- folders for segmentation -------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['mmseg.BaseSegDataset', 'mmdet.BaseSegDataset'])
def test_folders_of_images_are_checked_as_the_dataset_names_them(kind, tmp_path):
    cfg = dict(type=kind, data_root=str(tmp_path), data_prefix=dict(img_path='images'))
    with pytest.raises(DataError, match='images has no images'):
        check_dataset(dict(type='RepeatDataset', dataset=cfg))
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a_leftImg8bit.png').touch()
    with pytest.raises(DataError, match=r'no images that end in \.jpg'):
        check_dataset(cfg)
    check_dataset(cfg | dict(img_suffix='_leftImg8bit.png'))


def test_list_of_images_for_segmentation(tmp_path, monkeypatch):
    said = lines(monkeypatch, 'images')
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images' / 'a.jpg').touch()
    cfg = dict(type='mmseg.BaseSegDataset', data_root=str(tmp_path), ann_file='list.txt')
    cfg['data_prefix'] = dict(img_path='images')
    with pytest.raises(DataError, match=r'list\.txt does not exist: set dataset\.ann_file'):
        check_dataset(cfg)
    (tmp_path / 'list.txt').write_text('a\n')
    check_dataset(cfg)
    assert not said
    (tmp_path / 'list.txt').write_text('a\n/etc/b\n../c\n')
    check_dataset(cfg)
    assert 'names 2 files outside' in said[0]


def test_suffix_is_that_of_the_datasets_type(tmp_path):
    (tmp_path / 'a_leftImg8bit.png').touch()
    cfg = dict(data_root=str(tmp_path), data_prefix=dict(img_path=''))
    for name in ('CityscapesDataset', 'REFUGEDataset'):
        check_dataset(cfg | dict(type=f'mmseg.{name}'))
    with pytest.raises(DataError, match=r'no images that end in \.jpg'):
        check_dataset(cfg | dict(type='mmseg.ADE20KDataset'))
