"""Where instances are: boxes of files and detectors, and which of them are used."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mmuniformer.apis.inference.boxes import BoxFile, Detected, WholeImage
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.errors import UserError

CATEGORIES = [{'id': 4, 'name': 'box'}, {'id': 9, 'name': 'person'}, {'id': 7, 'name': 'dog'}]
IMAGE = np.zeros((60, 80, 3), np.uint8)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / 'boxes.json'
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def data_set(*annotations, categories=CATEGORIES):
    images = [{'id': 1, 'file_name': 'a.jpg'}]
    return {'images': images, 'categories': categories, 'annotations': list(annotations)}


def test_whole_images():
    finder = WholeImage('dog', {'categories': CATEGORIES})
    assert finder.categories == [{'id': 7, 'name': 'dog'}]
    assert finder([Frame(IMAGE)])[0].tolist() == [[0, 0, 80, 60, 1, 0]]
    assert WholeImage().categories == [{'id': 1, 'name': 'person'}]
    assert WholeImage(data_set={'categories': [{'id': 4, 'name': 'yak'}]}).categories == [
        {'id': 4, 'name': 'yak'}
    ]
    with pytest.raises(
        UserError, match=r"no category 'person'; choose with --box-classes .*: yak, "
    ):
        WholeImage(
            data_set={
                'categories': [{'id': n, 'name': name} for n, name in ((4, 'yak'), (5, 'ox'))]
            }
        )


def test_annotated_boxes_are_those_of_people_and_inside_the_image(write):
    person = {'image_id': 1, 'category_id': 9}
    path = write(
        data_set(
            {**person, 'bbox': [10, 20, 30, 200], 'num_keypoints': 0},
            {**person, 'bbox': [10, 20, 30, 40], 'iscrowd': 1},
            {'image_id': 1, 'category_id': 4, 'bbox': [0, 0, 5, 5]},
        )
    )
    finder = BoxFile(path, score_thr=0.9)
    first, second = finder([Frame(IMAGE, 1), Frame(IMAGE, 2)])
    assert finder.categories == [{'id': 9, 'name': 'person'}]
    assert first.tolist() == [
        [10, 20, 40, 60, 1, 0],
        [10, 20, 40, 60, 1, -1],
        [0, 0, 5, 5, 1, -1],
    ]
    assert second.shape == (0, 6)


@pytest.mark.parametrize(
    ('names', 'categories', 'labels', 'used'),
    [
        ((), CATEGORIES, [-1, 0, -1], [9]),
        (('all',), CATEGORIES, [0, 1, 2], [4, 9, 7]),
        (('dog', 'box'), CATEGORIES, [0, -1, 1], [4, 7]),
        ((), [CATEGORIES[0], CATEGORIES[2]], [0, -1, 1], [4, 7]),
    ],
)
def test_box_classes(write, names, categories, labels, used):
    entries = [{'image_id': 1, 'category_id': i, 'bbox': [0, 0, 9, 9]} for i in (4, 9, 7)]
    finder = BoxFile(write(data_set(*entries, categories=categories)), names=names)
    assert finder([Frame(IMAGE, 1)])[0][:, 5].tolist() == labels
    assert [category['id'] for category in finder.categories] == used

    classes = [category['name'] for category in categories]
    count = len(classes)
    found = SimpleNamespace(
        bboxes=np.ones((count, 4)), scores=np.full(count, 0.5), labels=np.arange(count)
    )
    detector = Detector(classes, [found])
    finder = Detected(detector, names, {'categories': categories})
    assert [category['id'] for category in finder.categories] == used
    known = [label for label, i in zip(labels, (4, 9, 7), strict=True) if count == 3 or i != 9]
    rows = finder([Frame(IMAGE)])[0]
    assert rows.tolist() == [[1, 1, 1, 1, 0.5, label] for label in known]


class Detector:
    network = SimpleNamespace(config='my-detector')

    def __init__(self, classes, results):
        self.classes, self.results = classes, results

    def __call__(self, frames):
        return self.results


def test_detection_results(write):
    entry = {'image_id': 7, 'category_id': 1, 'bbox': [1, 2, 3, 4], 'score': 0.8}
    path = write([entry, {**entry, 'score': 0.1}, {**entry, 'category_id': 3}])
    (boxes,) = BoxFile(path, 0.5)([Frame(IMAGE, 7)])
    assert np.allclose(boxes, [[1, 2, 4, 6, 0.8, 0], [1, 2, 4, 6, 0.8, -1]])
    categories = [{'id': 3, 'name': 'person'}]
    (boxes,) = BoxFile(path, 0.5, categories=categories)([Frame(IMAGE, 7)])
    assert boxes[:, 5].tolist() == [-1, 0]


@pytest.mark.parametrize(
    ('content', 'names', 'message'),
    [
        ('no json', (), 'cannot be read as JSON'),
        ('{"annotations": []}', (), 'is no COCO data set'),
        ('{"images": [], "annotations": 3}', (), 'a list of `annotations`'),
        ('[{"image_id": 1}]', (), 'entry 0 is no box'),
        ('[{"image_id": 1, "bbox": [1, 2]}]', (), 'entry 0 is no box'),
        ('[]', ('dog',), 'has no category names.*--ann-file'),
        (data_set(), ('cat',), '--box-classes cat: .*it has box, person, dog'),
    ],
)
def test_boxes_that_cannot_be_used(write, content, names, message):
    with pytest.raises(UserError, match=message):
        BoxFile(write(content), names=names)


def test_a_class_that_the_detector_lacks():
    with pytest.raises(UserError, match='--box-classes cat: my-detector has no such'):
        Detected(Detector(['person', 'dog'], []), ['cat'])
