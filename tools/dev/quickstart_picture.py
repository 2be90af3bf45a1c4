"""Draw the picture of the front page from the runs of `mmuniformer quickstart`.

A line for each task shows validation images, each with its ground truth and what was predicted;
of clips some frames in a row, with both on the first.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmuniformer.apis.inference.decode import MAX_PIXELS, Video, is_video
from mmuniformer.apis.quickstart import DATA, inputs
from mmuniformer.datasets.toy.folder import ToyData
from mmuniformer.datasets.toy.skeleton import KEYPOINTS, LINKS
from mmuniformer.datasets.toy.write import CLASSES, SEG_CLASSES, SEG_PALETTE, write_toy_data
from mmuniformer.visualization import draw

SCALE = 2
"""By which images are enlarged before."""
LABELED_SIDE, FRAMES, TOP = 256, 3, 2
"""Side of images and clips with a label; frames and labels of these that are shown."""
COLUMNS = 6
SHOWN = {'cls': 6, 'video': 4}
"""Images or clips of a task that are shown, of those that were drawn; of other tasks 2."""
CAPTIONS = {'cls': 'true label, predicted labels', 'video': 'frames; true and predicted motions'}
SCORE_THR, KEYPOINT_THR = 0.5, 0.3
CLASS_COLORS = draw.colors(SEG_PALETTE, len(SEG_CLASSES))
Record = Mapping[str, Any]


def spread(paths: Sequence[Path], count: int) -> Sequence[Path]:
    """Choose some paths at equal distances."""
    return paths[:: max(1, len(paths) // count)][:count]


def drawn_labels(path: Path, predictions: Path) -> list[np.ndarray]:
    """Return an image, or some frames of a clip: BGR, enlarged, the true label first."""
    images = [cv2.imread(str(path))]
    if is_video(path):
        images = [image for _, image in Video(path, MAX_PIXELS).frames()]
        images = [images[i] for i in np.linspace(0, len(images) - 1, FRAMES).round().astype(int)]
    size = (LABELED_SIDE, LABELED_SIDE)
    enlarged = [cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in images]
    with (predictions / 'predictions.csv').open(encoding='utf-8', newline='') as file:
        found = [row for row in csv.DictReader(file) if Path(row['input']) == path][:TOP]
    labels = [f'{row["name"]} {float(row["score"]):.2f}' for row in found]
    return [draw.draw_labels(enlarged[0], [path.parent.name, *labels]), *enlarged[1:]]


def drawn_image(task: str, data: ToyData, path: Path, predictions: Path) -> list[np.ndarray]:
    """Return an image, its ground truth and what was predicted: BGR, enlarged."""
    image = cv2.imread(str(path))
    image = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)
    if task == 'seg':
        # Pillow reads the indices of a PNG with a palette, OpenCV its colors.
        truth = np.array(Image.open(data.ade / 'annotations' / 'validation' / f'{path.stem}.png'))
        found = np.array(Image.open(predictions / 'masks' / f'{path.stem}.png'))
        # ADE counts classes from 1; 0 is unlabeled.
        maps = (np.maximum(truth, 1) - 1, found)
        drawn = (
            cv2.resize(each, image.shape[1::-1], interpolation=cv2.INTER_NEAREST) for each in maps
        )
        return [image, *(draw.draw_map(image, each, SEG_CLASSES, CLASS_COLORS) for each in drawn)]
    kind = 'person_keypoints' if task == 'pose' else 'instances'
    truth = json.loads((data.coco / 'annotations' / f'{kind}_val2017.json').read_text())
    found = json.loads((predictions / 'predictions.json').read_text())
    # Toy images are named by their id.
    truth, found = (
        [record for record in records if record['image_id'] == int(path.stem)]
        for records in (truth['annotations'], found)
    )
    if task == 'pose':
        truth = [record for record in truth if record['num_keypoints']]
        return [image, draw_keypoints(image, truth, 1), draw_keypoints(image, found, KEYPOINT_THR)]
    found = [record for record in found if record['score'] >= SCORE_THR]
    return [image, draw_masks(image, truth), draw_masks(image, found)]


def boxes_of(found: Sequence[Record]) -> np.ndarray:
    """Return COCO boxes as corners ``(N, 4)`` in the enlarged image."""
    boxes = np.array([record['bbox'] for record in found], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes * SCALE


def draw_masks(image: np.ndarray, found: Sequence[Record]) -> np.ndarray:
    """Draw boxes and masks, given as polygons or run lengths."""
    height, width = (side // SCALE for side in image.shape[:2])
    masks = np.zeros((len(found), *image.shape[:2]), bool)
    for mask, record in zip(masks, found, strict=True):
        area = record['segmentation']
        if isinstance(area, list):
            area = rle.merge(rle.frPyObjects(area, height, width))
        mask[:] = cv2.resize(rle.decode(area), image.shape[1::-1])
    names = [CLASSES[record['category_id'] - 1] for record in found]
    colored = [CLASS_COLORS[SEG_CLASSES.index(name)] for name in names]
    return draw.draw_instances(image, boxes_of(found), names, colored, masks)


def draw_keypoints(image: np.ndarray, found: Sequence[Record], lowest: float) -> np.ndarray:
    """Draw keypoints whose visibility or score is at least ``lowest``."""
    count = len(KEYPOINTS)
    points = np.array([record['keypoints'] for record in found], float).reshape(-1, count, 3)
    links = [(KEYPOINTS.index(a), KEYPOINTS.index(b)) for a, b in LINKS]
    return draw.draw_poses(
        image, boxes_of(found), points[..., :2] * SCALE, points[..., 2] >= lowest,
        links, draw.colors(None, len(links)), draw.colors(None, count),
    )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    """Write the picture of the tasks in ``results.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('out', type=Path, help='picture to write')
    parser.add_argument('--runs', type=Path, default=Path('work_dirs/quickstart'))
    options = parser.parse_args(arguments)
    data, lines = write_toy_data(DATA), {}
    for result in json.loads((options.runs / 'results.json').read_text()):
        task = result['task']
        predictions = options.runs / task / 'predictions'
        lines[f'{task}: {CAPTIONS.get(task, "image, ground truth, prediction")}'] = [
            image
            for path in spread(inputs(task, data), SHOWN.get(task, 2))
            for image in (
                drawn_labels(path, predictions)
                if task in CAPTIONS
                else drawn_image(task, data, path, predictions)
            )
        ]
    cv2.imwrite(str(options.out), draw.contact_sheet(lines, COLUMNS))


if __name__ == '__main__':
    main(sys.argv[1:])
