"""COCO files around prediction: whose picture ids to use, and where the people are."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmuniformer.apis.inference.inputs import Shot, Source
from mmuniformer.errors import UserError

COCO_UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO numbers its 80 classes from 1 to 90 and leaves these out."""

PERSON = 'person'

MIN_BOX_SIDE = 1.0


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: It is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path} is no JSON file: {error}') from error


def read_data_set(path: Path) -> dict[str, Any]:
    """Read a COCO data set: a dictionary with ``images``.

    Raises:
        UserError: It is something else.
    """
    content = read_json(path)
    images = content.get('images') if isinstance(content, dict) else None
    if not isinstance(images, list) or not all({'id', 'file_name'} <= set(i) for i in images):
        raise UserError(
            f'{path} is no COCO data set: that is a dictionary with `images`, each with id and '
            'file_name'
        )
    return content


class PictureIds:
    """Numbers for pictures: a COCO data set's, else those that the files are named by, else 1, 2...

    Args:
        sources: All that will be numbered. If each is a picture named by a different number, as
            COCO's are (``000000000785.jpg``), these numbers are used.
        data_set: A COCO data set; pictures are looked up in it by file name (and frame).
    """

    def __init__(self, sources: Sequence[Source], data_set: Mapping[str, Any] | None = None):
        self.listed: dict[str, list[tuple[str, int | None, Any]]] | None = None
        stems = [source.path.stem for source in sources if not source.is_video]
        numbers = {int(stem) for stem in stems if stem.isdecimal()}
        self.by_name = data_set is None and len(numbers) == len(sources)
        self.last = 0
        if data_set is not None:
            self.listed = defaultdict(list)
            for image in data_set['images']:
                name = Path(image['file_name'])
                self.listed[name.name].append((name.as_posix(), image.get('frame_id'), image['id']))

    def __call__(self, shot: Shot) -> Any:
        """Return the number of a picture.

        Raises:
            LookupError: The data set does not have it, or has several that it may be.
        """
        path = shot.source.path
        if self.listed is None:
            self.last += 1
            return int(path.stem) if self.by_name else self.last
        same_name = [entry for entry in self.listed.get(path.name, ()) if entry[1] == shot.frame]
        here = '/' + path.resolve().as_posix().lstrip('/')
        found = same_name if len(same_name) == 1 else [
            entry for entry in same_name if here.endswith('/' + entry[0].lstrip('/'))
        ]  # fmt: skip
        if len(found) != 1:
            several = ', '.join(entry[0] for entry in same_name)
            raise LookupError(
                f'may be any of several pictures of the annotation file: {several}'
                if several
                else 'is not among the pictures of the annotation file'
            )
        return found[0][2]


def category_ids(classes: Sequence[str], data_set: Mapping[str, Any] | None = None) -> list[int]:
    """Return the ids of classes: a data set's by name, COCO's for COCO's classes, else 1, 2, ...

    Raises:
        UserError: The data set has categories, but lacks one of the classes.
    """
    categories = (data_set or {}).get('categories')
    if categories:
        by_name = {category['name']: category['id'] for category in categories}
        missing = [name for name in classes if name not in by_name]
        if missing:
            raise UserError(
                f'the annotation file has no category {missing[0]!r}, which the model predicts; '
                f'it has {", ".join(by_name)}'
            )
        return [by_name[name] for name in classes]
    if len(classes) == 80 and (classes[0], classes[-1]) == (PERSON, 'toothbrush'):
        return [number for number in range(1, 91) if number not in COCO_UNUSED_IDS]
    return list(range(1, len(classes) + 1))


class PeopleBoxes:
    """Boxes of people by picture id, from a COCO data set or COCO detection results.

    Crowds, boxes thinner than a pixel, other categories than ``person`` and scores below the
    threshold are left out.

    Args:
        path: The file.
        score_thr: Lowest score of a detection; annotations of a data set have none and count as 1.
        categories: Those of a data set that belongs to results, which have ids only.

    Raises:
        UserError: The file is neither.
    """

    def __init__(
        self,
        path: Path,
        score_thr: float = 0.0,
        categories: Sequence[Mapping[str, Any]] = (),
    ):
        content = read_json(path)
        self.data_set = None
        if isinstance(content, dict):
            self.data_set = read_data_set(path)
            categories = content.get('categories', ())
            content = content.get('annotations', [])
        person = next((c['id'] for c in categories if c['name'] == PERSON), None)
        if person is None and self.data_set is None and not categories:
            person = 1  # COCO's
        self.boxes: dict[Any, list[list[float]]] = defaultdict(list)
        if not isinstance(content, list):
            raise UserError(f'{path}: `annotations` should be a list')
        for number, entry in enumerate(content):
            try:
                self.add(entry, person, score_thr)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f'{path}: entry {number} is no box: it needs image_id and bbox '
                    f'(x, y, width, height), {type(error).__name__}: {error}'
                ) from error

    def add(self, entry: Mapping[str, Any], person: int | None, score_thr: float) -> None:
        """Add one annotation or detection if it is to be kept."""
        x, y, width, height = map(float, entry['bbox'])
        score = float(entry.get('score', 1))
        wanted = person is None or entry.get('category_id', person) == person
        if wanted and not entry.get('iscrowd') and score >= score_thr:
            self.boxes[entry['image_id']].append([x, y, x + width, y + height, score])

    def __call__(self, image_id: Any, height: int, width: int) -> np.ndarray:
        """Return a picture's boxes, ``(N, 5)``: x1, y1, x2, y2 inside the picture, and score."""
        boxes = np.array(self.boxes.get(image_id, []), dtype=np.float32).reshape(-1, 5)
        boxes[:, 0:4:2] = boxes[:, 0:4:2].clip(0, width)
        boxes[:, 1:4:2] = boxes[:, 1:4:2].clip(0, height)
        return without_slivers(boxes)


def without_slivers(boxes: np.ndarray) -> np.ndarray:
    """Leave out boxes ``(N, 5)`` thinner than a pixel: there is nobody in them to be seen."""
    return boxes[(boxes[:, 2:4] - boxes[:, :2]).min(axis=1, initial=np.inf) >= MIN_BOX_SIDE]
