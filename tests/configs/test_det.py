"""Detection configs: the cascade's heads, own data by options, sizes of images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from config_helpers import LOADERS, load, on_meta

from mmuniformer.apis.config import scope_of

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmdet')

SMALL = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco'
MULTI_SCALE = 'mask-rcnn_uniformer-small-h14_fpn_amp-ms-crop-3x_coco'
CASCADE = 'cascade-mask-rcnn_uniformer-{}-h14_fpn_amp-ms-crop-3x_coco'
CLASSES = ('person', 'box')


@pytest.mark.parametrize('arch', ['small', 'base'])
def test_cascade_refines_boxes_in_three_steps(arch):
    model = on_meta(CASCADE.format(arch))
    heads = model.roi_head.bbox_head
    stds = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)]
    assert [tuple(head.bbox_coder.stds) for head in heads] == stds
    for head in heads:
        assert (len(head.shared_convs), len(head.shared_fcs)) == (4, 1)
        assert head.reg_decoded_bbox
        assert head.fc_reg.out_features == 4 * 80
        assert (type(head.loss_bbox).__name__, head.loss_bbox.loss_weight) == ('GIoULoss', 10)
    ious = [assigner.pos_iou_thr for assigner in model.roi_head.bbox_assigner]
    assert ious == [0.5, 0.6, 0.7]


def data_options(root, classes, heads=('bbox_head', 'mask_head')):
    """The options of "Your own data" in docs/detection.md."""
    return [
        *(f'{loader}.data_root={root}/' for loader in LOADERS),
        *(f'{loader}.data_prefix.img=' for loader in LOADERS),
        *(f'{loader}.metainfo.classes=({",".join(classes)},)' for loader in LOADERS),
        *(f'{loader}.ann_file=own.json' for loader in LOADERS),
        *(f'{split}_evaluator.ann_file={root}/own.json' for split in ('val', 'test')),
        *(f'model.roi_head.{head}.num_classes={len(classes)}' for head in heads),
    ]


@pytest.fixture
def own_data(tmp_path):
    """Two images of 640 x 480, each with a person and a box; a third category stays unused."""
    import cv2

    noise = np.random.default_rng(0)
    images, annotations = [], []
    for number in (1, 2):
        name = f'{number}.png'
        cv2.imwrite(str(tmp_path / name), noise.integers(0, 255, (480, 640, 3), np.uint8))
        images.append({'id': number, 'file_name': name, 'width': 640, 'height': 480})
        for category, (x, y, w, h) in ((7, (40, 40, 300, 400)), (9, (300, 200, 200, 200))):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': number,
                    'category_id': category,
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{'id': 7, 'name': 'person'}, {'id': 8, 'name': 'cat'}, {'id': 9, 'name': 'box'}]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (tmp_path / 'own.json').write_text(json.dumps(content))
    return tmp_path


def dataset(config, split):
    from mmdet.registry import DATASETS

    with scope_of(config):
        return DATASETS.build(config[f'{split}_dataloader'].dataset)


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_own_data_and_classes_by_options_alone(own_data, split):
    config = load(SMALL, *data_options(own_data, CLASSES))
    data = dataset(config, split)
    assert tuple(data.metainfo['classes']) == CLASSES
    assert len(data) == 2
    sample = data[0]
    assert sample['inputs'].shape == (3, 800, 1067)
    instances = sample['data_samples'].gt_instances
    assert instances.labels.tolist() == [0, 1]
    height, width = (800, 1067) if split == 'train' else (480, 640)
    assert instances.masks.masks.shape == (2, height, width)


def test_class_names_with_spaces_come_from_a_file(own_data):
    names = own_data / 'classes.txt'
    names.write_text('person\nbig box\n')
    option = f'train_dataloader.dataset.metainfo.classes={names}'
    config = load(SMALL, *data_options(own_data, CLASSES), option)
    assert list(dataset(config, 'train').metainfo['classes']) == ['person', 'big box']


def test_own_classes_reach_every_head_of_a_cascade():
    heads = [f'bbox_head.{stage}' for stage in range(3)] + ['mask_head']
    roi_head = load(CASCADE.format('small'), *data_options('d', CLASSES, heads)).model.roi_head
    assert [head.num_classes for head in [*roi_head.bbox_head, roi_head.mask_head]] == [2] * 4


def test_multi_scale_pipeline_gives_the_sizes_of_the_recipe(own_data):
    data = dataset(load(MULTI_SCALE, *data_options(own_data, CLASSES)), 'train')
    np.random.seed(0)
    sizes = [tuple(data[index % 2]['inputs'].shape[1:]) for index in range(40)]
    assert {min(size) for size in sizes} <= set(range(480, 801, 32))
    assert len({min(size) for size in sizes}) > 5
    assert max(max(size) for size in sizes) <= 1333
    whole = [size for size in sizes if abs(max(size) / min(size) - 4 / 3) < 0.01]
    assert 10 <= len(whole) <= 30


def test_multi_scale_and_flip(own_data):
    config = load(SMALL, *data_options(own_data, CLASSES))
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    inputs = dataset(config, 'test')[0]['inputs']
    assert sorted({min(image.shape[1:]) for image in inputs}) == [640, 800, 960]
    assert len(inputs) == 6
