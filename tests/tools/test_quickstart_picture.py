"""The picture of the front page."""

import json

import numpy as np
import pytest

from mmuniformer.apis.quickstart import image_paths
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
        image, wanted, drawn = picture.drawn_image(task, data, image_paths(data)[1], tmp_path)
        assert image.shape == (256, 256, 3)
        assert (wanted != image).any()
        assert (drawn == wanted).all() == equal
