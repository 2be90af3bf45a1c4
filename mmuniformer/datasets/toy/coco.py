"""What COCO's annotation files say about a scene."""

from __future__ import annotations

import cv2
import numpy as np

from mmuniformer.datasets.toy.scenes import Instance
from mmuniformer.datasets.toy.skeleton import KEYPOINTS, LINKS

# Contours are traced on a mask enlarged so much, to follow the edges of pixels and not their
# middles, and simplified by at most this many (original) pixels.
ENLARGE = 4
TOLERANCE = 0.4
MIN_HOLE = 3


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Outline a (H, W) bool mask as COCO polygons, [x0, y0, x1, y1, ...] each.

    Every separate region gives a polygon; a mask with holes is cut through them, as COCO's polygons
    cannot have any. Holes of less than three pixels are filled.
    """
    canvas = np.pad(mask.astype(np.uint8), 1)
    holes, labels, stats, centres = cv2.connectedComponentsWithStats(1 - canvas, connectivity=4)
    outside = labels[0, 0]
    for hole in range(1, holes):
        if hole != outside and stats[hole, cv2.CC_STAT_AREA] >= MIN_HOLE:
            column = int(round(centres[hole][0])) - 1
            left, right = mask.copy(), mask.copy()
            left[:, column:] = False
            right[:, :column] = False
            return mask_to_polygons(left) + mask_to_polygons(right)

    soft = cv2.resize(
        canvas.astype(np.float32), None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_LINEAR
    )
    contours, _ = cv2.findContours(
        (soft > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    polygons = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, TOLERANCE * ENLARGE, True)
        outline = (simple if len(simple) >= 3 else contour)[:, 0]
        outline = np.clip((outline + 0.5) / ENLARGE - 1, 0, mask.shape[::-1])
        polygons.append([round(float(value), 2) for value in outline.ravel()])
    return polygons


def annotation(instance: Instance, *, number: int, image_id: int, category_id: int) -> dict:
    """One entry of ``annotations``, with ``keypoints`` for a person."""
    polygons = mask_to_polygons(instance.mask)
    rows, cols = np.nonzero(instance.mask)
    left, top = int(cols.min()), int(rows.min())
    entry = {
        'id': number,
        'image_id': image_id,
        'category_id': category_id,
        'segmentation': polygons,
        'bbox': [left, top, int(cols.max()) + 1 - left, int(rows.max()) + 1 - top],
        'area': int(instance.mask.sum()),
        'iscrowd': 0,
    }
    if instance.keypoints is not None:
        entry['keypoints'] = [
            int(value) if index % 3 == 2 else round(float(value), 2)
            for index, value in enumerate(instance.keypoints.ravel())
        ]
        entry['num_keypoints'] = int((instance.keypoints[:, 2] > 0).sum())
    return entry


def person_category(number: int) -> dict:
    """The category of a keypoint file, with the joints' names and their links."""
    places = {name: index for index, name in enumerate(KEYPOINTS, 1)}
    return {
        'id': number,
        'name': 'person',
        'supercategory': 'person',
        'keypoints': list(KEYPOINTS),
        'skeleton': [[places[start], places[end]] for start, end in LINKS],
    }
