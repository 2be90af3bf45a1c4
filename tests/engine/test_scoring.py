"""faster-coco-eval gives the figures of pycocotools and xtcocotools."""

from __future__ import annotations

import copy
import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from mmuniformer.engine import scoring
from mmuniformer.engine.runner import CheckedRunner
from mmuniformer.engine.scoring import MODULES, faster_class, score_faster

pytest.importorskip('faster_coco_eval')
pytestmark = pytest.mark.frameworks

TOOLS = {'bbox': 'pycocotools', 'segm': 'pycocotools', 'keypoints': 'xtcocotools'}
SIDE = 400
ULP = np.finfo(float).eps


def outline(box):
    x, y, w, h = box
    return [x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]


def keypoints(box, random, visible):
    x, y, w, h = box
    places = random.random((17, 2)) * (w, h) + (x, y)
    return np.c_[places, visible].round(2).ravel().tolist()


def toy_truth_and_predictions(kind, images=12):
    """Objects of all sizes, crowds and people without keypoints; predictions near and far, ties."""
    mask = pytest.importorskip(f'{TOOLS[kind]}.mask')
    random = np.random.default_rng(0)
    truth, predictions = [], []

    def box(near=None):
        if near is not None:
            return np.abs(near + random.normal(size=4) * near[2] * random.choice([0.02, 0.2])) + 1
        w, h = np.exp(random.uniform(1.5, 5.2, 2))
        return np.array([*random.uniform(0, SIDE / 2, 2), w, h])

    def predict(image, category, box, points=None):
        found = {'image_id': image, 'category_id': category, 'score': round(random.random(), 1)}
        box = box.round(2).tolist()
        if kind == 'bbox':
            found['bbox'] = box
        elif kind == 'segm':
            (found['segmentation'],) = mask.frPyObjects([outline(box)], SIDE, SIDE)
        else:
            places = keypoints(box, random, np.ones(17)) if points is None else points
            noise = random.normal(size=51) * np.tile([3, 3, 0], 17)
            found['keypoints'] = np.where(np.arange(51) % 3 == 2, 0.5, places + noise).tolist()
        predictions.append(found)

    for image in range(1, images + 1):
        for _ in range(random.integers(8)):
            place, category = box(), int(random.integers(1, 4))
            shown = random.integers(0, 3, 17) * (random.random() < 0.8)
            points = keypoints(place, random, shown)
            truth.append({
                'id': len(truth) + 1, 'image_id': image, 'category_id': category,
                'bbox': place.tolist(), 'area': place[2] * place[3] / 2,
                'segmentation': [outline(place)], 'iscrowd': int(random.random() < 0.15),
                'keypoints': points, 'num_keypoints': int((shown > 0).sum()),
            })  # fmt: skip
            for _ in range(random.integers(3)):
                predict(image, category, box(place), points)
        for _ in range(4):
            predict(image, int(random.integers(1, 4)), box())
    content = {
        'images': [{'id': n + 1, 'width': SIDE, 'height': SIDE} for n in range(images)],
        'categories': [{'id': n, 'name': str(n)} for n in (1, 2, 3)],
        'annotations': truth,
    }
    return content, predictions


def scored(kind, content, predictions, faster, **params):
    """Score by the original class or the faster one."""
    tool = TOOLS[kind]
    truth = importlib.import_module(f'{tool}.coco').COCO()
    truth.dataset = copy.deepcopy(content)
    truth.createIndex()
    original = importlib.import_module(f'{tool}.cocoeval').COCOeval
    found = truth.loadRes(copy.deepcopy(predictions))
    area = params.pop('use_area', True)
    options = [np.linspace(0.03, 0.1, 17), area] if kind == 'keypoints' else []
    scores = (faster_class(original) if faster else original)(truth, found, kind, *options)
    vars(scores.params).update(params)
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return scores


def both(kind, content, predictions, **params):
    return [scored(kind, content, predictions, faster, **params) for faster in (True, False)]


@pytest.mark.parametrize(
    ('kind', 'params'),
    [
        ('bbox', {}),
        ('bbox', {'maxDets': [100, 300, 1000]}),  # as mmdet sets them
        ('bbox', {'maxDets': [1, 2, 100], 'catIds': [1, 3], 'imgIds': [2, 3, 5, 7, 11]}),
        ('bbox', {'maxDets': [2, 3, 100], 'useCats': 0}),  # of proposals
        ('segm', {'maxDets': [1, 2, 100]}),
        ('keypoints', {}),
    ],
)
def test_figures_are_those_of_the_original(kind, params):
    faster, original = both(kind, *toy_truth_and_predictions(kind), **params)
    assert faster.counted is not None
    np.testing.assert_array_equal(faster.eval['recall'], original.eval['recall'])
    np.testing.assert_array_equal(faster.eval['scores'], original.eval['scores'])
    # The original adds 2e-16 to what it divides by: 1 where the best prediction alone is right.
    np.testing.assert_allclose(
        faster.eval['precision'], original.eval['precision'], rtol=0, atol=ULP
    )
    assert faster.stats.round(12).tolist() == original.stats.round(12).tolist()
    assert len(np.unique(original.eval['precision'])) > 10


def test_other_predictions_have_other_figures():
    content, predictions = toy_truth_and_predictions('bbox')
    before = scored('bbox', content, predictions, True)
    for each in predictions[:10]:
        each['bbox'][2] *= 3
    after = scored('bbox', content, predictions, True)
    assert not np.array_equal(before.eval['precision'], after.eval['precision'])


def textual_ids(content, predictions):
    for each in (*content['annotations'], *predictions):
        each['image_id'] = f'image {each["image_id"]}'
    for each in content['images']:
        each['id'] = f'image {each["id"]}'


def unknown_score(content, predictions):
    predictions[0]['score'] = float('nan')


def id_of_0(content, predictions):
    for each in content['annotations']:
        each['id'] -= 1


def other_counts(content, predictions):
    for each in content['annotations']:
        each['num_keypoints'] = 0


def no_counts(content, predictions):
    for each in content['annotations']:
        del each['num_keypoints']


def nobody(content, predictions):
    predictions[0]['keypoints'][2::3] = [0.0] * 17


@pytest.mark.parametrize(
    ('kind', 'change', 'params'),
    [
        ('bbox', textual_ids, {}),
        ('segm', unknown_score, {}),
        ('keypoints', textual_ids, {}),
        ('keypoints', id_of_0, {}),
        ('keypoints', other_counts, {}),
        ('keypoints', no_counts, {}),
        ('keypoints', nobody, {}),
        ('keypoints', lambda *data: None, {'use_area': False}),
    ],
)
def test_what_would_count_otherwise_is_left_to_the_original(kind, change, params):
    data = toy_truth_and_predictions(kind)
    change(*data)
    faster, original = both(kind, *data, **params)
    assert faster.counted is None
    np.testing.assert_array_equal(faster.eval['precision'], original.eval['precision'])
    np.testing.assert_array_equal(faster.stats, original.stats)


def test_an_id_of_0_is_none_to_both():
    content, predictions = data = toy_truth_and_predictions('bbox')
    first = content['annotations'][0]
    first['iscrowd'] = 0
    found = {key: first[key] for key in ('image_id', 'category_id', 'bbox')}
    predictions.append({**found, 'score': 1.0})
    before = scored('bbox', *data, True).stats
    id_of_0(*data)
    faster, original = both('bbox', *data)
    assert faster.counted is not None
    assert faster.stats.round(12).tolist() == original.stats.round(12).tolist()
    assert faster.stats[0] < before[0]


@pytest.mark.parametrize('name', MODULES)
def test_metrics_score_by_it_while_they_compute(name, monkeypatch):
    module = importlib.import_module(name)
    original = module.COCOeval

    class Own(module.CocoMetric):
        def compute_metrics(self, results):
            if results:
                raise OSError('disk full')
            return {'used': module.COCOeval.__mro__}

    metric, other = Own.__new__(Own), SimpleNamespace()
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric, other]))
    CheckedRunner.checked(SimpleNamespace(cfg={'check_data': False}), loop, 'val')
    used = metric.compute_metrics([])['used']
    assert used[1:3] == (scoring.Faster, original)
    with pytest.raises(OSError, match='disk full'):
        metric.compute_metrics([1])
    assert module.COCOeval is original
    assert vars(other) == {}

    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    metric = Own.__new__(Own)
    score_faster([metric])
    assert metric.compute_metrics([])['used'] == original.__mro__
