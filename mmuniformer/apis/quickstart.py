"""Quickstart: train, test and draw nano models on toy data, by the commands of this package."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmuniformer.apis.config import find_config
from mmuniformer.datasets.toy.folder import ToyData, image_files
from mmuniformer.datasets.toy.skeleton import KEYPOINTS, LINKS
from mmuniformer.datasets.toy.write import CLASSES, SEG_CLASSES, SEG_PALETTE, write_toy_data
from mmuniformer.errors import UserError
from mmuniformer.visualization import draw

DATA = Path('data/toy')
"""Where the toy configs look for their data, below the current folder."""
DRAWN = 4
"""Validation images that are drawn."""
SCALE = 2
"""By which they are enlarged before."""
SCORE_THR, KEYPOINT_THR = 0.5, 0.3
CLASS_COLORS = draw.colors(SEG_PALETTE, len(SEG_CLASSES))

Say = Callable[[str], None]
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """A toy config, and the metrics of its test log: their names here and their unit."""

    config: str
    metrics: Mapping[str, str]
    unit: float = 1.0


EXAMPLES = {
    'det': Example(
        'mask-rcnn_uniformer-nano_fpn_toy',
        {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50'},
    ),
    # MMSegmentation logs percent.
    'seg': Example('upernet_uniformer-nano_toy-128x128', {'mIoU': 'mIoU'}, 100.0),
    'pose': Example('td-hm_uniformer-nano_toy-128x96', {'coco/AP': 'AP (OKS)'}),
}
"""By task."""


@dataclass(frozen=True)
class Result:
    """What the model of a task reached on validation images."""

    task: str
    config: str
    metrics: Mapping[str, float]
    """In [0, 1]."""
    train_seconds: float
    test_seconds: float
    checkpoint: str
    drawings: Sequence[str]


def quickstart(tasks: Iterable[str], out: Path, say: Say = print) -> list[Result]:
    """Write toy data, then train, test and draw the model of each task.

    Writes ``results.json`` and ``contact_sheet.png`` into the folder ``out``, and what the runs
    leave into a folder per task.

    Args:
        tasks: Keys of ``EXAMPLES``.
        out: Folder.
        say: Called with each command before it runs.

    Raises:
        UserError: The toy data cannot be written, or a command fails.
    """
    try:
        data = write_toy_data(DATA)
    except UserError as error:
        raise UserError(f'{error} (`mmuniformer toy-data {DATA} --force`)') from error
    results = [run_task(task, data, out / task, say) for task in tasks]
    rows = {
        f'{result.task}: image, ground truth, prediction': [
            image
            for path in image_paths(data)
            for image in drawn_image(result.task, data, path, out / result.task / 'predictions')
        ]
        for result in results
    }
    sheet = draw.contact_sheet(rows, columns=6)
    cv2.imwrite(str(out / 'contact_sheet.png'), sheet)
    content = json.dumps([vars(result) for result in results], indent=1)
    (out / 'results.json').write_text(content + '\n')
    return results


def run_task(task: str, data: ToyData, work_dir: Path, say: Say) -> Result:
    """Train, test and predict with the model of a task.

    Raises:
        UserError: A command fails.
    """
    example = EXAMPLES[task]
    config = str(find_config(example.config))
    train_seconds = call(say, 'train', config, '--work-dir', work_dir)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    test_seconds = call(say, 'test', config, checkpoint, '--work-dir', work_dir)
    predictions = work_dir / 'predictions'
    people = data.coco / 'annotations' / 'person_keypoints_val2017.json'
    options = {
        'det': ['--ann-file', people.with_name('instances_val2017.json')],
        'seg': [],
        'pose': ['--boxes', people, '--ann-file', people.with_name('instances_val2017.json')],
    }[task]
    call(
        say, 'predict', task, config, checkpoint, *image_paths(data), *options,
        '--out', predictions, '--force',
    )  # fmt: skip
    drawings = [str(path) for path in sorted((predictions / 'vis').iterdir())]
    metrics = newest_metrics(work_dir, example)
    return Result(task, config, metrics, train_seconds, test_seconds, checkpoint, drawings)


def image_paths(data: ToyData) -> list[Path]:
    """Return the validation images that are drawn."""
    count = min(DRAWN, data.settings.images('val'))
    return [data.out / image_files('val', index)[0] for index in range(count)]


def call(say: Say, *arguments: str | Path) -> float:
    """Run ``mmuniformer`` in a new process with its output in sight; return the seconds it took.

    Raises:
        UserError: It exits with another status than 0.
    """
    words = list(map(str, arguments))
    say(f'$ mmuniformer {" ".join(words)}')
    start = time.perf_counter()
    program = 'from mmuniformer.cli import main; main()'
    status = subprocess.run([sys.executable, '-c', program, *words], check=False).returncode
    if status:
        raise UserError(
            f'mmuniformer {words[0]} failed with status {status}, see its messages above; '
            '`mmuniformer doctor` checks the installation'
        )
    return time.perf_counter() - start


def newest_metrics(work_dir: Path, example: Example) -> dict[str, float]:
    """Read the metrics that the last test logged, in [0, 1].

    Raises:
        UserError: No test logged them.
    """
    # A run's folder is named by its time, 20261122_155805, and so is its log.
    for log in sorted(work_dir.glob('[0-9]*_[0-9]*/*.json'), reverse=True):
        values = json.loads(log.read_text())
        if set(example.metrics) <= set(values):
            return {name: values[key] / example.unit for key, name in example.metrics.items()}
    raise UserError(f'{work_dir} has no log with {", ".join(example.metrics)}')


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
