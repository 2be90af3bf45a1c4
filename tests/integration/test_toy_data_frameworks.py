"""The frameworks' own dataset classes read the toy data unchanged."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from mmuniformer.datasets.toy import write as toy

pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> toy.ToyData:
    return toy.write_toy_data(tmp_path_factory.mktemp('toy') / 'set', train_images=6, val_images=3)


def test_mmdet_reads_the_instances(data):
    pytest.importorskip('mmdet', exc_type=ImportError)
    from mmdet.datasets import CocoDataset
    from mmdet.utils import register_all_modules

    register_all_modules()
    dataset = CocoDataset(
        data_root=str(data.coco),
        ann_file='annotations/instances_train2017.json',
        data_prefix={'img': 'train2017/'},
        metainfo={'classes': toy.CLASSES},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'with_bbox': True, 'with_mask': True},
            {'type': 'PackDetInputs'},
        ],
    )
    assert len(dataset) == 6
    found = np.zeros(3, int)
    for item in dataset:
        truth = item['data_samples'].gt_instances
        assert item['inputs'].shape == (3, 128, 128)
        masks = truth.masks.to_ndarray()
        for box, mask in zip(truth.bboxes.numpy(), masks, strict=True):
            x0, y0, x1, y1 = box.round().astype(int)
            assert mask[y0:y1, x0:x1].sum() > 0.99 * mask.sum() > 0
        found += np.bincount(truth.labels.numpy(), minlength=3)
    assert dict(zip(toy.CLASSES, found.tolist(), strict=True)) == data.instances['train']


def test_mmpose_reads_the_keypoints(data):
    pytest.importorskip('mmpose', exc_type=ImportError)
    from mmpose.datasets import CocoDataset
    from mmpose.utils import register_all_modules

    register_all_modules()
    dataset = CocoDataset(
        data_root=str(data.coco),
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix={'img': 'val2017/'},
        data_mode='topdown',
        pipeline=[{'type': 'LoadImage'}],
    )
    assert len(dataset) == data.instances['val']['person']
    names = dataset.metainfo['keypoint_id2name']
    warm = {'left': [], 'right': []}
    for item in dataset:
        assert item['img'].shape == (128, 128, 3)
        assert item['keypoints'].shape == (1, 17, 2)
        labeled = item['keypoints_visible'].reshape(17) > 0
        assert labeled.sum() > 4
        joints = item['keypoints'][0]
        x0, y0, x1, y1 = item['bbox'][0]
        middle = joints[labeled].mean(0)
        assert x0 <= middle[0] <= x1
        assert y0 <= middle[1] <= y1
        for index in np.flatnonzero(labeled):
            side, _, part = names[index].rpartition('_')
            if part in ('elbow', 'wrist', 'knee', 'ankle'):
                x, y = (joints[index] + 0.5).astype(int)
                blue, _, red = item['img'][y, x].astype(int)
                warm[side].append(red > blue)
    # Some of these joints are behind something else.
    assert np.mean(warm['left']) - np.mean(warm['right']) > 0.5


def test_mmseg_reads_the_label_maps(data):
    pytest.importorskip('mmseg', exc_type=ImportError)
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules

    register_all_modules()
    # ADE20KDataset takes subsets of its own classes only.
    dataset = BaseSegDataset(
        data_root=str(data.ade),
        reduce_zero_label=True,
        data_prefix={'img_path': 'images/training', 'seg_map_path': 'annotations/training'},
        metainfo={'classes': toy.SEG_CLASSES, 'palette': [list(c) for c in toy.SEG_PALETTE]},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'LoadAnnotations', 'reduce_zero_label': True},
            {'type': 'PackSegInputs'},
        ],
    )
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == toy.SEG_CLASSES
    seen = set()
    for item in dataset:
        labels = item['data_samples'].gt_sem_seg.data.numpy()
        assert labels.shape == (1, 128, 128)
        assert (labels == 0).mean() > 0.2
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, 1, 2, 3}


def test_guide_draws_training_samples_of_mmseg(data, tmp_path, repository, run_python):
    pytest.importorskip('mmseg', exc_type=ImportError)
    code, _ = re.findall(
        r'```python\n(.*?)```', (repository / 'docs' / 'inspection.md').read_text(), re.DOTALL
    )
    (tmp_path / 'configs').symlink_to(repository / 'configs')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'toy').symlink_to(data.out)
    seeded = 'import random, numpy\nrandom.seed(0)\nnumpy.random.seed(0)\n'
    (tmp_path / 'draw.py').write_text(seeded + code.replace('range(8)', 'range(2)'))
    done = run_python('draw.py')
    assert done.returncode == 0, done.stderr
    for index in range(2):
        drawn = cv2.imread(str(tmp_path / 'browse' / f'{index}.jpg')).astype(int)
        # Images that are resized below the size of a crop are padded only in a batch.
        assert 115 <= min(drawn.shape[:2]) <= max(drawn.shape[:2]) <= 128
        # MMSegmentation gives the color of the class 0.8 of each pixel.
        rest = drawn[..., ::-1] - 0.8 * np.array(toy.SEG_PALETTE[0])
        background = ((rest > -2) & (rest < 0.2 * 255 + 2)).all(-1)
        assert 0.2 < background.mean() < 1
