"""COCO files around prediction: data sets, image ids, category ids and masks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmuniformer.apis.inference.decode import is_video
from mmuniformer.errors import InputError, UserError

DataSet = Mapping[str, Any] | None
"""The content of a COCO data set, if there is one."""
COCO_UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO numbers its 80 classes from 1 to 90 without these."""


def read_coco(path: Path, results: bool = False) -> Any:
    """Read a COCO data set, a dictionary; with ``results`` it may be COCO results, a list."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as JSON: {error}') from error
    if isinstance(content, list) and results:
        return content
    if (
        not isinstance(content, dict)
        or not isinstance(content.get('images'), list)
        or not isinstance(content.get('annotations', []), list)
        or not all(isinstance(i, dict) and {'id', 'file_name'} <= set(i) for i in content['images'])
    ):
        raise UserError(
            f'{path} is no COCO data set: that is a dictionary with `images`, each with id and '
            'file_name, and a list of `annotations`'
        )
    return content


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask ``(H, W)`` as COCO's compressed RLE."""
    from pycocotools.mask import encode

    code = encode(mask.astype(np.uint8, order='F'))
    return {**code, 'counts': code['counts'].decode()}


class ImageIds:
    """Ids of images: a COCO data set's, else the numbers that files are named by, else 1, 2, ...

    Where each of the ``paths`` of a run is named by a different number, as COCO's images are
    (``000000000785.jpg``), these are the ids; ``by_name`` says so. In a data set images are looked
    up by file name, a video's frames also by ``frame_id``.
    """

    def __init__(self, paths: Sequence[Path], data_set: DataSet = None):
        stems = [path.stem for path in paths if not is_video(path)]
        numbers = {int(stem) for stem in stems if stem.isdecimal()}
        self.by_name = data_set is None and len(numbers) == len(paths)
        self.last = 0
        self.listed: dict[str, list[Mapping[str, Any]]] | None = None
        if data_set is not None:
            self.listed = defaultdict(list)
            for image in data_set['images']:
                self.listed[Path(image['file_name']).name].append(image)

    def __call__(self, path: Path, index: int | None = None) -> Any:
        """Return the id of an image file, or of a video's frame."""
        if self.listed is None:
            self.last += 1
            return int(path.stem) if self.by_name else self.last
        # Images of a video data set have a frame_id, too, but files of their own.
        found = [
            image
            for image in self.listed.get(path.name, ())
            if index is None or image.get('frame_id') == index
        ]
        if not found:
            raise InputError(f'{path}: not among the images of the annotation file')
        if len(found) > 1:
            names = ', '.join(Path(image['file_name']).as_posix() for image in found)
            found = [image for image in found if lies_at(path, image['file_name'])]
            if len(found) != 1:
                raise InputError(f'{path}: may be any of several annotated images: {names}')
        return found[0]['id']


def lies_at(path: Path, name: str) -> bool:
    """Tell whether the full path of a file, or of what it links to, ends with a file name."""
    parts = Path(name.lstrip('/')).parts
    return any(place.parts[-len(parts) :] == parts for place in (path.absolute(), path.resolve()))


def categories_of(names: Sequence[str], data_set: DataSet = None) -> list[dict[str, Any]]:
    """Return ids and names of classes: ids are the data set's, COCO's, or 1, 2, ..."""
    if listed := (data_set or {}).get('categories'):
        by_name = {category['name']: category['id'] for category in listed}
        if missing := [name for name in names if name not in by_name]:
            raise UserError(
                f'the annotation file has no category {missing[0]!r}, which is predicted; it has '
                f'{", ".join(by_name)}'
            )
        ids = [by_name[name] for name in names]
    elif len(names) == 80 and (names[0], names[-1]) == ('person', 'toothbrush'):
        ids = [number for number in range(1, 91) if number not in COCO_UNUSED_IDS]
    else:
        ids = list(range(1, len(names) + 1))
    return [{'id': number, 'name': name} for number, name in zip(ids, names, strict=True)]
