"""docs/own-data.md: every command trains and evaluates on files of its kind, made tiny here."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click import ClickException
from guides import words_of
from PIL import Image
from videos import write_video

from mmuniformer.cli import group

pytestmark = [pytest.mark.integration, pytest.mark.frameworks]

SPLITS = ('train', 'val', 'test')
WIDTH, HEIGHT = 96, 80
SMALL = [
    *(f'{split}_dataloader.{option}' for split in SPLITS for option in (
        'num_workers=0', 'persistent_workers=False', 'batch_size=2',
    )),
    *('model.backbone.arch=nano', 'optim_wrapper.type=OptimWrapper', 'log_level=WARNING'),
]  # fmt: skip
EPOCH = [
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.checkpoint.interval=1',
]
UNTRAINED = 'model.backbone.init_cfg.checkpoint=none'
SMALLER = {
    'rcnn': [
        *(*EPOCH, UNTRAINED),
        *('model.neck.in_channels=[16,32,64,128]', 'model.roi_head.bbox_head.fc_out_channels=32'),
        *(f'{split}_dataloader.dataset.pipeline.{number}.scale=({WIDTH},{HEIGHT})'
          for split, number in zip(SPLITS, (2, 1, 1), strict=True)),
    ],
    'td-hm': [
        *(*EPOCH, UNTRAINED, 'model.head.in_channels=128'),
        'model.head.deconv_out_channels=(8,8,8)',
    ],
    'upernet': [
        UNTRAINED,
        *('train_cfg.max_iters=1', 'train_cfg.val_interval=1'),
        *('model.decode_head.in_channels=[16,32,64,128]', 'model.decode_head.channels=8'),
        *('model.auxiliary_head.in_channels=64', 'model.auxiliary_head.channels=8'),
        *('train_dataloader.dataset.pipeline.2.scale=(128,128)',
          'train_dataloader.dataset.pipeline.3.crop_size=(64,64)'),
        'model.data_preprocessor.size=(64,64)',
        *(f'{split}_dataloader.dataset.pipeline.1.scale=(128,128)' for split in SPLITS[1:]),
    ],
    '_in1k': [
        *(*EPOCH, 'model.head.in_channels=128', 'train_dataloader.dataset.pipeline.1.scale=32'),
        *(f'{split}_dataloader.dataset.pipeline.{option}=32' for split in SPLITS[1:]
          for option in ('1.scale', '2.crop_size')),
    ],
    '-rgb': [
        *(*EPOCH, UNTRAINED, 'model.cls_head.in_channels=128'),
        *(f'{split}_dataloader.dataset.pipeline.1.clip_len=4' for split in SPLITS),
        'train_dataloader.dataset.pipeline.3.transforms.2.scale=(32,32)',
        *(f'{split}_dataloader.dataset.pipeline.{option}=32' for split in SPLITS[1:]
          for option in ('3.scale', '4.crop_size')),
    ],
}  # fmt: skip
"""What makes a config of the guide small: by what is in its name."""


@pytest.fixture
def follow(repository, tmp_path, monkeypatch):
    """Run the command of a kind on the data in the current folder; return the metrics."""
    page = (repository / 'docs' / 'own-data.md').read_text().replace('/data/mine', str(tmp_path))
    pytest.importorskip('mmdet')
    pytest.importorskip('mmpose')
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmaction')
    monkeypatch.chdir(tmp_path)
    if 'keypoints.py' in page:
        code = re.search(r'```python\n(.*?)```', page, re.DOTALL)[1]
        (tmp_path / 'keypoints.py').write_text(code)

    def run(kind, *options):
        words = words_of(page, kind)
        name = 'td-hm' if words[1] == 'keypoints.py' else words[1]
        (small,) = [smaller for key, smaller in SMALLER.items() if key in name]
        words += ['--cfg-options'] * ('--cfg-options' not in words)
        words += [
            *SMALL,
            *small,
            f'work_dir={tmp_path}/run',
            f'experiment_name={tmp_path}',
            f'visualizer.name={tmp_path}',
            *options,
        ]
        group.main(words, standalone_mode=False)
        *_, scores = sorted(tmp_path.glob('run/*/vis_data/scalars.json'))
        return json.loads(scores.read_text().splitlines()[-1])

    return run


# --- boxes --------------------------------------------------------------------------------------


def write_images(folder, names, seed=0):
    noise = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = noise.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def boxes(*without, **more):
    """A COCO file of two images with a cat and a dog each."""
    images, annotations = [], []
    for number in (1, 2):
        images.append(
            {'id': number, 'file_name': f'{number}.jpg', 'width': WIDTH, 'height': HEIGHT}
        )
        for category, (x, y, w, h) in ((1, (4, 4, 40, 50)), (2, (40, 20, 50, 40))):
            full = {
                'id': len(annotations) + 1, 'image_id': number, 'category_id': category,
                'bbox': [x, y, w, h], 'area': w * h, 'iscrowd': 0, 'segmentation': [], **more,
            }  # fmt: skip
            annotations.append({key: full[key] for key in full if key not in without})
    categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
    return {'images': images, 'annotations': annotations, 'categories': categories}


def write_boxes(folder, **files):
    write_images(folder / 'images', ['1.jpg', '2.jpg'])
    for name, content in files.items():
        (folder / f'{name}.json').write_text(json.dumps(content))


@pytest.mark.parametrize('kind', ['Boxes', 'Boxes with Mask R-CNN'])
def test_boxes_without_masks(follow, tmp_path, kind):
    write_boxes(tmp_path, train=boxes('segmentation'), val=boxes())
    assert 0 <= follow(kind)['coco/bbox_mAP'] <= 1


def test_boxes_without_anything_else(follow, tmp_path):
    bare = boxes('area', 'iscrowd', 'segmentation')
    write_boxes(tmp_path, train=bare, val=bare)
    assert 0 <= follow('Bare boxes')['coco/bbox_mAP'] <= 1


@pytest.mark.parametrize(
    ('split', 'field', 'way_out'),
    [
        ('train', 'area', 'datasets.det.FilledCocoDataset'),
        ('val', 'iscrowd', 'val_evaluator.type=mmuniformer.datasets.det.FilledCocoMetric'),
    ],
)
def test_missing_field_stops_a_run_with_the_way_out(follow, tmp_path, split, field, way_out):
    write_boxes(tmp_path, **{'train': boxes(), 'val': boxes(), split: boxes(field)})
    with pytest.raises(ClickException, match=rf'annotation 1: {field} is missing.*{way_out}'):
        follow('Boxes')
    assert not list(tmp_path.glob('run/*.pth'))


def test_pascal_voc(follow, tmp_path):
    root = tmp_path / 'VOC2012'
    write_images(root / 'JPEGImages', ['a.jpg', 'b.jpg'])
    (root / 'Annotations').mkdir()
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    for split, name in (('train', 'a'), ('val', 'b')):
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(f'{name}\n')
        (root / 'Annotations' / f'{name}.xml').write_text(
            f'<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth>'
            '</size><object><name>dog</name><difficult>0</difficult><bndbox><xmin>5</xmin>'
            '<ymin>5</ymin><xmax>60</xmax><ymax>70</ymax></bndbox></object></annotation>'
        )
    assert 0 <= follow('Pascal VOC')['pascal_voc/mAP'] <= 1


def test_lvis(follow, tmp_path, monkeypatch):
    pytest.importorskip('lvis')
    from mmdet.datasets import LVISV1Dataset

    names = LVISV1Dataset.METAINFO['classes']
    categories = [{'id': n, 'name': name, 'frequency': 'f'} for n, name in enumerate(names, 1)]
    for split in ('train', 'val'):
        content = boxes('iscrowd', segmentation=[[4, 4, 40, 4, 40, 50]])
        for image in content['images']:
            image['coco_url'] = (
                f'http://images.cocodataset.org/{split}2017/{image.pop("file_name")}'
            )
            image |= {'neg_category_ids': [3], 'not_exhaustive_category_ids': []}
        write_images(tmp_path / f'{split}2017', ['1.jpg', '2.jpg'])
        (tmp_path / f'lvis_v1_{split}.json').write_text(
            json.dumps(content | {'categories': categories})
        )
    monkeypatch.setattr(np, 'float', float, raising=False)  # for the release on PyPI
    small = [
        *('model.roi_head.mask_head.conv_out_channels=8', 'model.test_cfg.rpn.max_per_img=10'),
        *('model.test_cfg.rcnn.max_per_img=5', 'val_evaluator.metric=[bbox,segm]'),
    ]
    assert 'lvis/segm_AP' in follow('LVIS', *small)


# --- keypoints ----------------------------------------------------------------------------------


def people(count, *without, **more):
    """A COCO file of two images with a person each, all keypoints in the box."""
    content = boxes('segmentation')
    content['annotations'] = content['annotations'][::2]
    for annotation in content['annotations']:
        x, y, w, h = annotation['bbox']
        points = [(x + (5 * k) % w, y + (7 * k) % h, 2) for k in range(1, count + 1)]
        annotation['keypoints'] = [number for point in points for number in point]
        annotation |= {'num_keypoints': count, 'category_id': 1, **more}
        for key in without:
            del annotation[key]
    return content | {'categories': [{'id': 1, 'name': 'person'}]}


def write_people(folder, images, content, *files):
    write_images(folder / images, ['1.jpg', '2.jpg'])
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(json.dumps(content))


CROWDPOSE = [f'annotations/mmpose_crowdpose_{split}.json' for split in ('trainval', 'test')]


def test_crowdpose(follow, tmp_path):
    content = people(14, 'area')
    for index, image in enumerate(content['images']):
        image['crowdIndex'] = [0.05, 0.9][index]
    write_people(tmp_path, 'images', content, *CROWDPOSE)
    assert {'coco/AP', 'coco/AP(E)', 'coco/AP(H)'} <= follow('CrowdPose').keys()


def test_crowdpose_without_crowd_index_stops_a_run(follow, tmp_path):
    write_people(tmp_path, 'images', people(14, 'area'), *CROWDPOSE)
    with pytest.raises(ClickException, match=r'image 1: crowdIndex is missing.*iou_type=keypoints'):
        follow('CrowdPose')


def test_animals_of_many_categories(follow, tmp_path):
    content = people(17)
    content['categories'] = [{'id': n, 'name': f'animal {n}'} for n in range(1, 61)]
    for number, annotation in enumerate(content['annotations']):
        annotation['category_id'] = 7 + 50 * number
    files = [f'annotations/ap10k-{split}-split1.json' for split in ('train', 'val')]
    write_people(tmp_path, 'data', content, *files)
    assert 'coco/AP' in follow('AP-10K')


def test_mpii(follow, tmp_path):
    from scipy.io import savemat

    write_images(tmp_path / 'images', ['015601864.jpg', '015599452.jpg'])
    (tmp_path / 'annotations').mkdir()
    entry = {
        'joints_vis': [1] * 16, 'joints': [[10 + 4 * k, 8 + 4 * k] for k in range(16)],
        'scale': 0.4, 'center': [40.0, 40.0],
    }  # fmt: skip
    for split in ('train', 'val'):
        content = [{**entry, 'image': name} for name in ('015601864.jpg', '015599452.jpg')]
        (tmp_path / f'annotations/mpii_{split}.json').write_text(json.dumps(content))
    heads = np.array([[[10.0, 12.0], [30.0, 33.0]]] * 2)
    savemat(tmp_path / 'annotations/mpii_gt_val.mat', {'headboxes_src': heads.transpose(1, 2, 0)})
    with pytest.raises(ClickException, match=r'val_dataloader\.dataset\.headbox_file'):
        follow('MPII', 'val_dataloader.dataset.headbox_file=None')
    with pytest.raises(ClickException, match=r'save_best=coco/AP'):
        follow('MPII', 'default_hooks.checkpoint.save_best=coco/AP')
    assert 0 <= follow('MPII')['PCK'] <= 100


def test_whole_body(follow, tmp_path):
    content = people(17, segmentation=[])
    for annotation in content['annotations']:
        parts = {'foot': 6, 'face': 68, 'lefthand': 21, 'righthand': 21}
        for part, count in parts.items():
            annotation[f'{part}_kpts'] = [20, 20, 2] * count
            annotation[f'{part}_valid'] = True
    for split in ('train', 'val'):
        file = f'annotations/coco_wholebody_{split}_v1.0.json'
        write_people(tmp_path, f'{split}2017', content, file)
    assert 'coco-wholebody/AP' in follow('COCO-WholeBody')


def test_people_without_area_and_iscrowd(follow, tmp_path):
    bare = people(17, 'area', 'iscrowd', 'num_keypoints')
    write_people(tmp_path, 'images', bare, 'train.json', 'val.json')
    with pytest.raises(ClickException, match=r'annotation 1: area is missing.*use_area=False'):
        follow('Bare people', 'val_evaluator.use_area=True')
    assert 'coco/AP' in follow('Bare people')


def test_own_keypoints(follow, tmp_path):
    write_people(tmp_path, 'images', people(3), 'train.json', 'val.json')
    assert 'coco/AP' in follow('Own keypoints')


# --- label maps ---------------------------------------------------------------------------------


def label_map(kind):
    """Three classes in stripes, and no class below them."""
    labels = np.repeat(np.array([0, 1, 2, 255], np.uint8), HEIGHT // 4)[:, None].repeat(WIDTH, 1)
    if kind == '16-bit':
        return Image.fromarray(labels.astype(np.uint16))
    image = Image.fromarray(labels)
    if kind == 'palette':
        image = Image.fromarray(labels, mode='P')
        image.putpalette(list(range(255, -1, -1)) * 3)
    return image


@pytest.mark.parametrize('kind', ['16-bit', 'palette'])
def test_label_maps(follow, tmp_path, kind):
    for split in ('train', 'val'):
        write_images(tmp_path / split / 'images', ['a.jpg', 'b.jpg'])
        (tmp_path / split / 'masks').mkdir()
        for name in 'ab':
            label_map(kind).save(tmp_path / split / 'masks' / f'{name}.png')
    assert 0 <= follow('Label maps')['mIoU'] <= 100


# --- classes of images and videos ---------------------------------------------------------------


def write_image_folders(root):
    for split in SPLITS[:2]:
        for pet in ('cat', 'dog'):
            write_images(root / split / pet, ['a.jpg', 'b.jpg'])


def test_image_folders(follow, tmp_path):
    write_image_folders(tmp_path)
    assert follow('Image folders')['accuracy/top1'] in (0, 25, 50, 75, 100)


@pytest.mark.parametrize(
    ('options', 'problem'),
    [
        (['model.head.num_classes=3'], r'model.head.num_classes=3, but .*loss.num_classes=2.* set'),
        (['val_dataloader.dataset.metainfo.classes=(dog,cat)'], 'folders, cat, dog, but metainfo'),
        (['val_dataloader.dataset.metainfo.classes=(Cat,Dog)'], 'the classes Cat, Dog, another'),
        (
            ['train_dataloader.dataset.metainfo.classes=(cat,)'],
            'holds 2 folders, cat, dog, and .* 1',
        ),
        (['train_dataloader.dataset.data_prefix=other'], 'other holds no folders'),
    ],
)
def test_classes_that_differ_stop_a_run(follow, tmp_path, options, problem):
    write_image_folders(tmp_path)
    with pytest.raises(ClickException, match=problem):
        follow('Image folders', *options)


def test_more_folders_than_the_classifier_has_classes(follow, tmp_path):
    write_image_folders(tmp_path)
    write_images(tmp_path / 'train' / 'fox', ['a.jpg'])
    classes = 'train_dataloader.dataset.metainfo.classes=(cat,dog,fox)'
    with pytest.raises(ClickException, match='has 3 classes, cat, dog, fox, but .*=2: set it to 3'):
        follow('Image folders', classes)


LIST = 'pets/my cat.jpg 0\npets/dog.jpg 1\n'


def test_image_lists(follow, tmp_path):
    write_images(tmp_path / 'images' / 'pets', ['my cat.jpg', 'dog.jpg'])
    for split in SPLITS[:2]:
        (tmp_path / f'{split}.txt').write_text(LIST)
    assert follow('Image lists')['accuracy/top1'] in (0, 50, 100)


@pytest.mark.parametrize(
    ('lines', 'problem'),
    [
        (LIST + 'pets/fox.jpg 1\n', 'train.txt: 1 of 3 images do not exist, .*pets/fox.jpg: set'),
        (LIST + 'pets/dog.jpg\n', "train.txt, line 3: 'pets/dog.jpg' is not"),
        (LIST + 'pets/dog.jpg 2\n', 'pets/dog.jpg has the label 2, but model.head.num_classes=2'),
        (None, 'train.txt, the list of images, does not exist'),
    ],
)
def test_bad_image_lists_stop_a_run(follow, tmp_path, lines, problem):
    write_images(tmp_path / 'images' / 'pets', ['my cat.jpg', 'dog.jpg'])
    (tmp_path / 'val.txt').write_text(LIST)
    if lines:
        (tmp_path / 'train.txt').write_text(lines)
    with pytest.raises(ClickException, match=problem):
        follow('Image lists')


def write_videos(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(root / name, 9)


def test_video_folders(follow, tmp_path):
    for split in SPLITS[:2]:
        write_videos(tmp_path / split, 'walk/a.avi', 'run/b.avi')
    assert follow('Video folders')['acc/top1'] in (0, 0.5, 1)


def test_video_lists(follow, tmp_path):
    write_videos(tmp_path / 'videos', 'park/1.avi', 'park/2.avi')
    for split in SPLITS[:2]:
        (tmp_path / f'{split}.txt').write_text('park/1.avi 0\npark/2.avi 1\n')
    assert follow('Video lists')['acc/top1'] in (0, 0.5, 1)


def test_frame_folders(follow, tmp_path):
    for number in (1, 2):
        names = [f'img_{index:05}.jpg' for index in range(1, 6)]
        write_images(tmp_path / 'frames' / 'park' / str(number), names)
    for split in SPLITS[:2]:
        (tmp_path / f'{split}.txt').write_text('park/1 5 0\npark/2 5 1\n')
    assert follow('Frame folders')['acc/top1'] in (0, 0.5, 1)


def test_more_labels_than_the_recognizer_has_classes(follow, tmp_path):
    write_videos(tmp_path / 'videos', 'park/1.avi', 'park/2.avi')
    for split in SPLITS[:2]:
        (tmp_path / f'{split}.txt').write_text('park/1.avi 2\npark/2.avi 0\n')
    three = [f'{split}_dataloader.dataset.metainfo.classes=(a,b,c)' for split in SPLITS]
    with pytest.raises(ClickException, match='has the label 2, but model.cls_head.num_classes=2'):
        follow('Video lists', *three)
