"""One picture of what the toy models do: scene, ground truth and prediction of each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from mmuniformer.datasets.toy.folder import ToyData
from mmuniformer.datasets.toy.skeleton import KEYPOINTS, LINKS
from mmuniformer.datasets.toy.write import CLASSES, SEG_CLASSES, SEG_PALETTE
from mmuniformer.visualization.draw import colors, draw_instances, draw_map, draw_poses

SCALE = 2
"""Scenes are enlarged before they are drawn on."""
GAP = 6
CAPTION = 26
LOWEST_SCORE = 0.5
"""Of a predicted instance that is drawn."""
LOWEST_POINT = 0.3
"""Score of a predicted key point that is drawn."""
CLASS_COLOURS = colors(SEG_PALETTE, len(SEG_CLASSES))
Record = Mapping[str, Any]


def contact_sheet(
    scenes: Sequence[Path], data: ToyData, work_dirs: Mapping[str, Path]
) -> Image.Image:
    """Lay out a row a task, and in it scene, ground truth and prediction of each scene.

    Args:
        scenes: Held-out pictures of the toy data.
        data: The toy data, for the ground truth.
        work_dirs: For each task the folder that holds ``predictions``.
    """
    rows = []
    for task, folder in work_dirs.items():
        panels = []
        for scene in scenes:
            picture = enlarge(cv2.imread(str(scene)))
            truth, prediction = DRAW[task](picture, scene, data, folder / 'predictions')
            panels.append(np.hstack(spaced([picture, truth, prediction])))
        rows.append(captioned(task, panels))
    return Image.fromarray(cv2.cvtColor(np.vstack(rows), cv2.COLOR_BGR2RGB))


def spaced(panels: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Put a white gap to the right of each panel."""
    return [padded(panel, right=GAP) for panel in panels]


def padded(panel: np.ndarray, bottom: int = 0, right: int = 0) -> np.ndarray:
    """Add a white border."""
    return cv2.copyMakeBorder(panel, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=[255] * 3)


def captioned(task: str, panels: Sequence[np.ndarray]) -> np.ndarray:
    """Stack a task's panels below a line of words, two to a line."""
    lines = [np.hstack(panels[i : i + 2]) for i in range(0, len(panels) // 2 * 2, 2)] or [panels[0]]
    body = np.vstack([padded(line, bottom=GAP) for line in lines])
    caption = np.full((CAPTION, body.shape[1], 3), 255, np.uint8)
    text = f'{task}: scene, ground truth, prediction'
    cv2.putText(caption, text, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([caption, body])


def enlarge(picture: np.ndarray) -> np.ndarray:
    """Scale a picture up for drawing."""
    return cv2.resize(picture, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_CUBIC)


def image_id(scene: Path) -> int:
    """Toy pictures are named by their id."""
    return int(scene.stem)


def annotations(data: ToyData, kind: str, scene: Path) -> list[Record]:
    """Return the ground truth of a scene."""
    content = json.loads((data.coco / 'annotations' / f'{kind}_val2017.json').read_text())
    return [entry for entry in content['annotations'] if entry['image_id'] == image_id(scene)]


def predictions(folder: Path, scene: Path) -> list[Record]:
    """Return what was predicted on a scene, best first."""
    listing = json.loads((folder / 'images.json').read_text())['images']
    number = next(e['id'] for e in listing if Path(e['file_name']).name == scene.name)
    content = json.loads((folder / 'predictions.json').read_text())
    return [entry for entry in content if entry['image_id'] == number]


def draw_det(picture: np.ndarray, scene: Path, data: ToyData, folder: Path) -> list[np.ndarray]:
    """Draw true and predicted instances."""
    found = [e for e in predictions(folder, scene) if e['score'] >= LOWEST_SCORE]
    truth = annotations(data, 'instances', scene)
    return [instances(picture, entries) for entries in (truth, found)]


def instances(picture: np.ndarray, entries: Sequence[Record]) -> np.ndarray:
    """Draw COCO annotations or results."""
    names = [CLASSES[entry['category_id'] - 1] for entry in entries]
    marks = [CLASS_COLOURS[SEG_CLASSES.index(name)] for name in names]
    masks = [cv2.resize(small_mask(e, picture), picture.shape[1::-1]) > 0 for e in entries]
    return draw_instances(
        picture, corners(entries), names, marks, np.array(masks) if masks else None
    )


def small_mask(entry: Record, picture: np.ndarray) -> np.ndarray:
    """Return an instance's mask at the size of the scene: polygons or run lengths."""
    height, width = (side // SCALE for side in picture.shape[:2])
    area = entry['segmentation']
    if isinstance(area, list):
        area = rle.merge(rle.frPyObjects(area, height, width))
    return rle.decode(area)


def corners(entries: Sequence[Record]) -> np.ndarray:
    """Return COCO boxes as ``(N, 4)`` corners in the enlarged picture."""
    boxes = np.array([entry['bbox'] for entry in entries], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes * SCALE


def draw_seg(picture: np.ndarray, scene: Path, data: ToyData, folder: Path) -> list[np.ndarray]:
    """Draw true and predicted classes."""
    # Pillow gives the indices of a PNG with a palette, OpenCV its colours.
    truth = np.array(Image.open(data.ade / 'annotations' / 'validation' / f'{scene.stem}.png'))
    found = np.array(Image.open(folder / 'masks' / f'{scene.stem}.png'))
    # ADE counts classes from 1; 0 is unlabelled.
    maps = [np.maximum(truth, 1) - 1, found]
    size = picture.shape[1::-1]
    maps = [cv2.resize(m, size, interpolation=cv2.INTER_NEAREST) for m in maps]
    return [draw_map(picture, m, SEG_CLASSES, CLASS_COLOURS) for m in maps]


def draw_pose(picture: np.ndarray, scene: Path, data: ToyData, folder: Path) -> list[np.ndarray]:
    """Draw true and predicted skeletons."""
    truth = [e for e in annotations(data, 'person_keypoints', scene) if e['num_keypoints']]
    return [people(picture, truth, 1), people(picture, predictions(folder, scene), LOWEST_POINT)]


def people(picture: np.ndarray, entries: Sequence[Record], lowest: float) -> np.ndarray:
    """Draw COCO key points whose visibility or score reaches ``lowest``."""
    count = len(KEYPOINTS)
    triples = np.array([entry['keypoints'] for entry in entries], float).reshape(-1, count, 3)
    links = [(KEYPOINTS.index(a), KEYPOINTS.index(b)) for a, b in LINKS]
    marks = colors(None, len(links))
    return draw_poses(
        picture, corners(entries), triples[..., :2] * SCALE, triples[..., 2] >= lowest,
        links, marks, colors(None, count),
    )  # fmt: skip


DRAW = {'det': draw_det, 'seg': draw_seg, 'pose': draw_pose}
