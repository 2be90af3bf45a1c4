"""Where instances are, for top-down pose: whole images, boxes of a file, or of a detector.

Called with frames, each returns an array ``(N, 6)`` per frame: x1, y1, x2, y2 in pixels, score,
index into its ``categories``. The index is -1 for boxes not to be used (other categories, crowds).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmuniformer.apis.inference.coco import DataSet, categories_of, read_coco
from mmuniformer.apis.inference.det import DetTask
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.errors import UserError

PERSON = 'person'


class WholeImage:
    """Takes each image for one instance of the category ``name``, from edge to edge.

    A COCO data set, ``data_set``, gives the category's id and, if it has but one, its name.
    """

    def __init__(self, name: str | None = None, data_set: DataSet = None):
        listed = [category['name'] for category in (data_set or {}).get('categories', ())]
        name = name or (listed[0] if len(listed) == 1 else PERSON)
        if listed and name not in listed:
            raise UserError(
                f'the annotation file has no category {name!r}; choose with --box-classes what '
                f'each image shows: {", ".join(listed)}'
            )
        self.categories = categories_of([name], data_set)

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Return one box for each frame."""
        sizes = (frame.image.shape[:2] for frame in frames)
        return [np.array([[0, 0, width, height, 1, 0]], np.float32) for height, width in sizes]


class GivenBoxes:
    """Takes boxes in memory, of the frames whose ids count from 0.

    Args:
        boxes: For each frame an array ``(N, 4)``: x1, y1, x2, y2 in pixels; ``(N, 5)`` with scores.

    Raises:
        UserError: An array has another shape; later, there is none for a frame.
    """

    def __init__(self, boxes: Sequence[np.ndarray]):
        self.categories = categories_of([PERSON])
        self.boxes = []
        for given in boxes:
            given = np.asarray(given, np.float32)
            if given.ndim != 2 or given.shape[1] not in (4, 5):
                raise UserError(
                    f'boxes of shape {given.shape}: give for each image an array (N, 4) of '
                    'x1, y1, x2, y2 in pixels, or (N, 5) with a score'
                )
            found = np.ones((len(given), 6), np.float32)
            found[:, : given.shape[1]] = given
            found[:, 5] = 0  # the category
            self.boxes.append(found)

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Return the boxes of each frame."""
        if frames[-1].id >= len(self.boxes):
            raise UserError(
                f'boxes are given for {len(self.boxes)} images, and there are more: give an array '
                'for each image, one of shape (0, 4) where nothing is'
            )
        return [self.boxes[frame.id] for frame in frames]


class BoxFile:
    """Takes boxes from a COCO data set or COCO detection results, by image id.

    Detections below ``score_thr`` are left out; annotations count as 1. ``names`` are the
    categories to use, or ``['all']``; if empty, ``person`` or, without that, all. ``categories``
    are those that results belong to, which have ids only. ``data_set`` is the file's content if it
    is one.
    """

    def __init__(
        self,
        path: Path,
        score_thr: float = 0.0,
        names: Sequence[str] = (),
        categories: Sequence[Mapping[str, Any]] = (),
    ):
        entries = read_coco(path, results=True)
        self.data_set = entries if isinstance(entries, dict) else None
        if self.data_set is not None:
            categories = self.data_set.get('categories', ())
            entries = self.data_set.get('annotations', [])
        if names and not categories:
            raise UserError(
                f'--box-classes: {path} has no category names; give the data set that has them '
                'with --ann-file'
            )
        known = {c['name']: c['id'] for c in categories} or {PERSON: 1}  # COCO's id
        self.categories = [{'id': known[n], 'name': n} for n in chosen(names, known, path)]
        labels = {category['id']: label for label, category in enumerate(self.categories)}
        self.boxes: dict[Any, list[list[float]]] = defaultdict(list)
        for number, entry in enumerate(entries):
            try:
                x, y, width, height = map(float, entry['bbox'])
                score = float(entry.get('score', 1))
                label = labels.get(entry.get('category_id', self.categories[0]['id']), -1)
                label = -1 if entry.get('iscrowd') else label
                box = [x, y, x + width, y + height, score, label]
                self.boxes[entry['image_id']] += [box] * (score >= score_thr)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f'{path}: entry {number} is no box: it needs image_id and bbox '
                    f'(x, y, width, height), {type(error).__name__}: {error}'
                ) from error

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Return the boxes of each frame, clipped to it."""
        found = []
        for frame in frames:
            height, width = frame.image.shape[:2]
            boxes = np.array(self.boxes.get(frame.id, []), dtype=np.float32).reshape(-1, 6)
            boxes[:, :4] = boxes[:, :4].clip(0, [width, height, width, height])
            found.append(boxes)
        return found


class Detected:
    """Takes what a detector finds, of the classes ``names`` as for ``BoxFile``.

    A COCO data set, ``data_set``, gives the classes their category ids.
    """

    def __init__(self, detector: DetTask, names: Sequence[str] = (), data_set: DataSet = None):
        self.detector = detector
        used = chosen(names, detector.classes, detector.network.config)
        self.categories = categories_of(used, data_set)
        self.labels = np.array([used.index(n) if n in used else -1 for n in detector.classes])

    def __call__(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Return the boxes found in each frame."""
        return [
            np.column_stack([found.bboxes, found.scores, self.labels[found.labels]])
            for found in self.detector(frames)
        ]


def chosen(names: Sequence[str], known: Sequence[str], where: object) -> list[str]:
    """Return the categories to use, of those that are known and in their order."""
    names = names or ([PERSON] if PERSON in known else ['all'])
    missing = [name for name in names if name not in known]
    if missing not in ([], ['all']):
        raise UserError(
            f'--box-classes {missing[0]}: {where} has no such category; it has {", ".join(known)}'
        )
    return [name for name in known if missing or name in names]
