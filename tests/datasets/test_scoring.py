"""What evaluators will need is checked on what they have built."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mmuniformer.datasets.checks import scoring
from mmuniformer.datasets.checks.scoring import check_scoring
from mmuniformer.engine.runner import check_best
from mmuniformer.errors import DataError, UserError


def metric(name, **attributes):
    """A metric of a framework's type, with what it has read."""
    framework, _, name = name.rpartition('.')
    kind = type(name, (SimpleNamespace,), {'__module__': f'{framework}.evaluation'})
    return kind(**attributes)


IMAGE = {'id': 1, 'width': 9, 'height': 8}


def boxes(annotation, classes=('cat',), **attributes):
    categories = [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}]
    ids = [each['id'] for each in categories if each['name'] in classes]
    table = SimpleNamespace(
        dataset={
            'annotations': [{'id': 5, 'image_id': 1, 'category_id': 1, **annotation}],
            'categories': categories,
            'images': [IMAGE],
        },
        get_cat_ids=lambda cat_names: ids,
        imgs={1: IMAGE},
    )
    settings = {'format_only': False, 'metrics': ['bbox'], **attributes}
    return metric(
        'mmdet.CocoMetric', _coco_api=table, dataset_meta={'classes': classes}, **settings
    )


SOUND = {'area': 4.0, 'iscrowd': 0, 'bbox': [0, 0, 2, 2]}
SEGM = {'metrics': ['bbox', 'segm']}


@pytest.mark.parametrize(
    ('annotation', 'attributes'),
    [
        (SOUND, {}),
        ({**SOUND, 'area': 4, 'iscrowd': True}, {}),
        ({**SOUND, 'segmentation': [[1, 1, 1, 2, 2, 2], [3, 3]]}, SEGM),
        ({**SOUND, 'segmentation': {'size': [8, 9], 'counts': 'X2'}}, SEGM),
        ({**SOUND, 'segmentation': [[1]]}, {}),
        ({}, {'format_only': True}),
        ({}, {'classes': ('dog',)}),  # of a category that is not scored
    ],
)
def test_sound_boxes_pass(annotation, attributes):
    check_scoring([boxes(annotation, **attributes)], None, 'val')


def test_file_of_images_alone_is_named():
    scored = boxes(SOUND)
    del scored._coco_api.dataset['annotations']
    with pytest.raises(DataError, match='no annotations to score by.*test_evaluator.format_only'):
        check_scoring([scored], None, 'test')


@pytest.mark.parametrize(
    ('annotation', 'attributes', 'message'),
    [
        ({'iscrowd': 0}, {}, 'annotation 5: area is missing.*FilledCocoMetric'),
        ({'area': '4', 'iscrowd': 0}, {}, "area is '4'"),
        ({'area': 4}, {}, 'iscrowd is missing; give 0 or 1, or set val_evaluator.type'),
        ({**SOUND, 'area': float('nan')}, {}, 'area is nan'),
        ({**SOUND, 'iscrowd': -1}, {}, 'iscrowd is -1; give 0 or 1'),
        ({**SOUND, 'id': 'a'}, {}, "annotation 'a': id is 'a'; give a finite number"),
        ({**SOUND, 'bbox': None}, {}, 'bbox is None; give 4'),
        (SOUND, {'metrics': ['segm']}, 'segmentation is missing.*val_evaluator.metric=bbox'),
        ({**SOUND, 'segmentation': [[1]]}, SEGM, 'segmentation is .*give polygons'),
        ({**SOUND, 'segmentation': [[]]}, SEGM, 'three points or more in the first polygon'),
        ({**SOUND, 'segmentation': [[1, 1, 2, 2]]}, SEGM, 'three points or more in the first'),
        (SOUND, {'classes': ('cat', 'bird')}, "1 of the 2 classes.*'bird'.*metainfo.classes"),
    ],
)
def test_boxes_that_cannot_be_scored_are_named(annotation, attributes, message):
    with pytest.raises(DataError, match=message):
        check_scoring([boxes(annotation, **attributes)], None, 'val')


def keypoints(annotation, image=None, sigmas=2, category=2, **attributes):
    content = {
        'annotations': [{'id': 5, 'iscrowd': False, **annotation}],
        'images': [{'id': 1, **(image or {})}],
        'categories': [{'id': 1}, {'id': category}],
    }
    settings = {
        'format_only': False, 'use_area': True, 'gt_converter': None, 'iou_type': 'keypoints',
        **attributes,
    }  # fmt: skip
    return metric(
        'mmpose.CocoMetric',
        coco=SimpleNamespace(dataset=content, imgs={1: {}}),
        dataset_meta={'num_keypoints': 2, 'sigmas': [0.1] * sigmas},
        **settings,
    )


PERSON = {'bbox': [0, 0, 4, 4], 'keypoints': [1, 1, 2] * 2, 'area': 3}


@pytest.mark.parametrize(
    ('annotation', 'attributes'),
    [
        (PERSON, {}),
        ({**PERSON, 'area': None}, {'use_area': False}),
        ({**PERSON, 'keypoints': [1, 1, 2]}, {'gt_converter': {'num_keypoints': 2}}),
        (PERSON, {'iou_type': 'keypoints_crowd', 'image': {'crowdIndex': 0.5}}),
        ({}, {'format_only': True}),
    ],
)
def test_sound_keypoints_pass(annotation, attributes):
    check_scoring([keypoints(annotation, **attributes)], None, 'val')


@pytest.mark.parametrize(
    ('annotation', 'attributes', 'message'),
    [
        ({**PERSON, 'area': None}, {}, 'area is None.*val_evaluator.use_area=False'),
        ({**PERSON, 'bbox': None}, {}, 'annotation 5: bbox'),
        ({**PERSON, 'iscrowd': [1]}, {}, r'iscrowd is \[1\]; give 0 or 1'),
        ({**PERSON, 'keypoints': [2**70] * 6}, {}, 'keypoints .* give 6 finite numbers'),
        (PERSON, {'category': 'a'}, "category 'a': id is 'a'; give a number, as others have"),
        (
            {**PERSON, 'keypoints': [1, 1, 2]},
            {},
            'keypoints .* give 6 finite numbers for 2 keypoints',
        ),
        (PERSON, {'sigmas': 17}, '17 sigmas for 2 keypoints'),
        (PERSON, {'iou_type': 'keypoints_crowd'}, 'image 1: crowdIndex is missing'),
    ],
)
def test_keypoints_that_cannot_be_scored_are_named(annotation, attributes, message):
    with pytest.raises(DataError, match=message):
        check_scoring([keypoints(annotation, **attributes)], None, 'val')


@pytest.mark.parametrize(('number', 'count'), [(0, 1), (1, 0)])
def test_id_that_counts_as_no_match_is_said(number, count, monkeypatch):
    said = []
    monkeypatch.setattr(scoring, 'print_log', lambda text, *_: said.append(text))
    metrics = [boxes({**SOUND, 'id': number}), keypoints({**PERSON, 'id': number})]
    check_scoring(metrics, None, 'val')
    assert len(said) == count
    assert all('annotation of id 0' in text for text in said)


def test_metrics_that_are_not_known_pass_with_a_line(monkeypatch):
    messages = []
    monkeypatch.setattr(scoring, 'print_log', lambda text, *_: messages.append(text))
    check_scoring([metric('mine.Metric'), metric('mmseg.IoUMetric')], None, 'val')
    assert messages == ['what mine.Metric needs is not checked before the run']


@pytest.mark.parametrize('dtype', ['np.float', 'float'])
def test_release_of_lvis_that_fails_at_the_end_is_refused_before(dtype, monkeypatch, tmp_path):
    file = tmp_path / 'lvis.py'
    file.write_text(f'class LVISEval:\n    dtype = "sum(dtype={dtype})"\n')
    spec = importlib.util.spec_from_file_location('lvis', file)
    monkeypatch.setitem(sys.modules, 'lvis', importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sys.modules['lvis'])
    if dtype == 'np.float' and not hasattr(np, 'float'):
        with pytest.raises(DataError, match='pip install --no-deps git'):
            check_scoring([metric('mmdet.LVISMetric')], None, 'val')
    else:
        check_scoring([metric('mmdet.LVISMetric')], None, 'val')


# --- the best checkpoint ------------------------------------------------------------------------


def named(prefix, module='mmpose'):
    return metric(f'{module}.Metric', prefix=prefix)


@pytest.mark.parametrize(
    ('name', 'metrics'),
    [
        ('auto', [named('coco')]),
        ('coco/AP', [named(None), named('coco')]),
        ('PCK', [named(None)]),
        ('own/score', [named(None, 'mine')]),
        ('a/b/c', [named('a/b')]),
    ],
)
def test_best_checkpoint_by_what_a_metric_may_give(name, metrics):
    check_best([name], metrics)
    check_best(None, metrics)


@pytest.mark.parametrize(
    ('name', 'metrics', 'given'),
    [
        ('coco/AP', [named('coco-wholebody')], 'coco-wholebody/...'),
        ('coco/AP', [named(None)], 'a plain name'),
        ('AP', [named('coco')], 'coco/...'),
    ],
)
def test_best_checkpoint_by_what_no_metric_gives_is_refused(name, metrics, given):
    with pytest.raises(UserError, match=f'save_best={name}: the evaluator gives {given}'):
        check_best([name], metrics)
