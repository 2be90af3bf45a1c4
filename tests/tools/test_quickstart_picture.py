"""The picture of the front page."""

import json

import numpy as np
import pytest

from mmuniformer.apis.quickstart import inputs
from mmuniformer.datasets.toy.write import write_toy_data

pytestmark = pytest.mark.frameworks
picture = pytest.importorskip('quickstart_picture')


@pytest.mark.parametrize('task', ['det', 'pose'])
def test_predictions_equal_to_the_ground_truth_are_drawn_alike(tmp_path, task):
    data = write_toy_data(tmp_path / 'toy', train_images=1, val_images=2)
    kind = 'instances' if task == 'det' else 'person_keypoints'
    file = data.coco / 'annotations' / f'{kind}_val2017.json'
    truth = json.loads(file.read_text())['annotations']
    predictions = tmp_path / 'predictions.json'
    for score, equal in ((0.9, True), (0.1, False)):
        found = []
        for record in truth:
            points = np.array(record.get('keypoints', []), float).reshape(-1, 3)
            points[:, 2] = np.where(points[:, 2] > 0, score, 0)
            found.append({**record, 'score': score, 'keypoints': points.flatten().tolist()})
        if task == 'pose':
            found = [record for record in found if record['num_keypoints']]
        predictions.write_text(json.dumps(found))
        image, wanted, drawn = picture.drawn_image(task, data, inputs(task, data)[1], tmp_path)
        assert image.shape == (256, 256, 3)
        assert (wanted != image).any()
        assert (drawn == wanted).all() == equal


@pytest.mark.parametrize(('task', 'frames'), [('cls', 1), ('video', 3)])
def test_labels_are_drawn_on_the_first_frame(tmp_path, task, frames):
    data = write_toy_data(tmp_path / 'toy', train_images=1, val_images=2)
    path = inputs(task, data)[0]
    drawn = {}
    for score in (0.9, 0.1):
        rows = [('other.png', 1, 0, 'grow', 0.5), (path, 1, 2, 'left', score)]
        lines = [
            ','.join(map(str, row)) for row in [('input', 'rank', 'label', 'name', 'score'), *rows]
        ]
        (tmp_path / 'predictions.csv').write_text('\n'.join(lines))
        drawn[score] = picture.drawn_labels(path, tmp_path)
        assert [image.shape for image in drawn[score]] == [(256, 256, 3)] * frames
    for index in range(frames):
        assert (drawn[0.9][index] == drawn[0.1][index]).all() == (index > 0)
