"""Annotations broken at random are refused by name, or are read whole by their framework."""

import copy
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.registry import DATASETS, METRICS
from PIL import Image

from mmuniformer.datasets.checks.dataset import checked_on_load
from mmuniformer.datasets.checks.scoring import check_scoring
from mmuniformer.engine.scoring import score_faster
from mmuniformer.errors import DataError

pytestmark = pytest.mark.frameworks
for package in ('mmdet', 'mmpose'):
    pytest.importorskip(f'{package}.datasets')

WIDTH, HEIGHT = 40, 30
SIZE = dict(width=WIDTH, height=HEIGHT)
FEW = settings(max_examples=60, derandomize=True, deadline=None, database=None)
MANY = settings(max_examples=5000, deadline=None, database=None, print_blob=True)


def annotation(number, image_id, segmentation):
    points = [5 + number, 6, 2] * 17
    return dict(
        id=number, image_id=image_id, category_id=1, bbox=[2, 2, 20, 20], area=400, iscrowd=0,
        segmentation=segmentation, keypoints=points, num_keypoints=17,
    )  # fmt: skip


SOUND = {
    'images': [dict(id=1, file_name='a.jpg', **SIZE), dict(id=2, file_name='ü b.jpg', **SIZE)],
    'categories': [dict(id=1, name='person'), dict(id=7, name='dog')],
    'annotations': [
        annotation(1, 1, [[2, 2, 20, 2, 20, 20], [3, 3, 9, 3, 9, 9, 3, 9]]),
        annotation(2, 2, {'size': [HEIGHT, WIDTH], 'counts': [100, 200, WIDTH * HEIGHT - 300]}),
        annotation(
            3, 2, {'size': [HEIGHT, WIDTH], 'counts': 'k36h000000000000000000000000000000eb0'}
        ),
    ],
}
MASKS = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(64, 64)),
    dict(type='RandomCrop', crop_size=(24, 24), allow_negative_crop=True),
    dict(type='PackDetInputs'),
]
BOXES = [MASKS[0], dict(type='LoadAnnotations', with_bbox=True), *MASKS[2:]]
POSE = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=(24, 32)),
    dict(
        type='GenerateTarget',
        encoder=dict(type='MSRAHeatmap', input_size=(24, 32), heatmap_size=(6, 8), sigma=1),
    ),
    dict(type='PackPoseInputs'),
]
KINDS = {
    'boxes': ('mmdet.CocoDataset', BOXES),
    'masks': ('mmdet.CocoDataset', MASKS),
    'keypoints': ('mmpose.CocoDataset', POSE),
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 7, -1, -3.5, 0.25, 1e-9, 40, 1e5, 1e9, 1e300, 2**40, 2**70]),
    st.sampled_from([float('nan'), float('inf'), -float('inf')]),
    st.sampled_from(['', ' ', '1', 'a.jpg', '/etc/passwd', '../a.jpg', '.', '\0', 'ü', 'x' * 300]),
    st.text(max_size=5),
    st.sampled_from([[], {}, [[]], [1], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6]], [None], ['a'] * 4]),
    st.lists(st.floats(-50, 90), max_size=8),
    st.builds(
        lambda size, counts: dict(size=size, counts=counts),
        st.sampled_from([[HEIGHT, WIDTH], [WIDTH, HEIGHT], [0, 0], [1], None, [-1, 2], '9']),
        st.one_of(
            st.text('0123nP:?`abcXYZ', max_size=9),
            st.lists(st.integers(-9, 1300)),
            st.sampled_from([[0.5, WIDTH * HEIGHT - 0.5], [True, WIDTH * HEIGHT - 1]]),
        ),
    ),
)


def places(node, path=()):
    """Yield the way to each value of a file, and to the first ones of long lists."""
    for key in node if isinstance(node, dict) else range(min(len(node), 6)):
        yield (*path, key)
        if isinstance(node[key], (dict, list)):
            yield from places(node[key], (*path, key))


@st.composite
def broken_files(draw):
    content = copy.deepcopy(SOUND)
    for _ in range(draw(st.integers(1, 3))):
        *way, key = draw(st.sampled_from(list(places(content))))
        node = content
        for step in way:
            node = node[step]
        change = draw(st.sampled_from(['value', 'value', 'value', 'remove', 'repeat', 'reverse']))
        if change == 'value':
            node[key] = copy.deepcopy(draw(VALUES))
        elif change == 'remove':
            del node[key]
        elif isinstance(node[key], list):
            values = node[key] * 2 if change == 'repeat' else node[key][::-1]
            node[key] = copy.deepcopy(values)
        if not content:
            break
    return content


def read(cfg, content):
    """Check a dataset and its metric, then read and score all of it; return why it was refused.

    As training does: the checks are over before the first sample is read.
    """
    folder = cfg['data_root']
    with open(f'{folder}/a.json', 'w') as file:
        json.dump(content, file)
    with DATASETS.switch_scope_and_registry(cfg['type'].split('.')[0]) as registry:
        try:
            dataset = registry.build(checked_on_load(cfg))
            metric = metric_of(cfg, dataset)
            check_scoring([metric], dataset, 'val')
        except DataError as error:
            return str(error)
        for index in range(len(dataset)):
            assert dataset[index]['inputs'].ndim == 3
            metric.process({}, [prediction(dataset.get_data_info(index))])
        results = list(metric.results)
        scores = metric.evaluate(len(dataset))
        assert all(-1 <= value <= 1 for value in scores.values())
        metric.results = results
        score_faster([metric])  # where faster-coco-eval is installed
        assert metric.evaluate(len(dataset)) == pytest.approx(scores, abs=1e-12)
    return None


def metric_of(cfg, dataset):
    """The metric that scores by the file of a dataset."""
    masks = any(step.get('with_mask') for step in cfg['pipeline'])
    pose = cfg['type'].startswith('mmpose')
    metric = METRICS.build(
        dict(type='mmpose.CocoMetric' if pose else 'mmdet.CocoMetric', ann_file=dataset.ann_file)
        | (dict(metric=['bbox', 'segm']) if masks else {})
    )
    metric.dataset_meta = dataset.metainfo
    return metric


def prediction(info):
    """A box of the first category, which fills most of its image, a mask and keypoints in it."""
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 2:22, 2:22] = True
    found = dict(
        bboxes=torch.tensor([[2.0, 2, 22, 22]]), scores=torch.ones(1), masks=mask,
        labels=torch.zeros(1, dtype=torch.long), keypoints=np.full((1, 17, 2), 6.0),
        keypoint_scores=np.ones((1, 17)),
    )  # fmt: skip
    if 'keypoints' in info:
        found['bboxes'] = info['bbox']
    return dict(
        pred_instances=found, gt_instances={}, img_id=info['img_id'], ori_shape=(HEIGHT, WIDTH),
        id=info.get('id'), category_id=info.get('category_id'),
    )  # fmt: skip


def config(kind, folder):
    for name in ('a.jpg', 'ü b.jpg'):
        Image.new('RGB', (WIDTH, HEIGHT), 'teal').save(folder / name)
    name, pipeline = KINDS[kind]
    meta = {} if kind == 'keypoints' else dict(metainfo=dict(classes=('person', 'dog')))
    return dict(
        type=name, data_root=str(folder), ann_file='a.json', data_prefix=dict(img=''),
        pipeline=pipeline, serialize_data=False, **meta,
    )  # fmt: skip


@pytest.mark.parametrize('kind', KINDS)
def test_sound_annotations_are_read(kind, tmp_path):
    assert read(config(kind, tmp_path), SOUND) is None


@pytest.mark.parametrize(
    'runs', [FEW, pytest.param(MANY, marks=pytest.mark.minutes)], ids=['few', 'many']
)
@pytest.mark.parametrize('kind', KINDS)
def test_broken_annotations_are_refused_or_read(kind, runs, tmp_path_factory):
    cfg = config(kind, tmp_path_factory.mktemp(kind))
    files = cfg['data_root'], 'the file of val_evaluator.ann_file'
    reasons = []

    @runs
    @given(broken_files())
    def run(content):
        reason = read(cfg, content)
        assert reason is None or any(file in reason for file in files)
        reasons.append(reason)

    run()
    sys.stdout.write(f'{kind}: {len(reasons)} files, {reasons.count(None)} of them read\n')
    assert reasons.count(None) < len(reasons) < 10 * reasons.count(None)
