"""COCO files around prediction: data sets, image ids and category ids."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmuniformer.apis.inference.decode import is_video
from mmuniformer.errors import InputError, UserError

COCO_UNUSED_IDS = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO numbers its 80 classes from 1 to 90 without these."""


def read_coco(path: Path) -> dict[str, Any] | list[Any]:
    """Read a COCO data set (a dictionary with ``images``) or COCO results (a list).

    Raises:
        UserError: The file cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path} is no JSON file: {error}') from error
    if isinstance(content, list):
        return content
    images = content.get('images') if isinstance(content, dict) else None
    if (
        not isinstance(images, list)
        or not all(
            isinstance(image, dict) and {'id', 'file_name'} <= set(image) for image in images
        )
        or not isinstance(content.get('annotations', []), list)
    ):
        raise UserError(
            f'{path} is no COCO data set: that is a dictionary with `images`, each with id and '
            'file_name, and a list of `annotations`'
        )
    return content


def read_data_set(path: Path) -> dict[str, Any]:
    """Read a COCO data set.

    Raises:
        UserError: The file is something else.
    """
    content = read_coco(path)
    if isinstance(content, list):
        raise UserError(f'{path} is no COCO data set, but a list, as results are')
    return content


class ImageIds:
    """Ids of images: a COCO data set's, else the numbers that files are named by, else 1, 2, ...

    Args:
        paths: All files of the run. If each is named by a different number, as COCO's images are
            (``000000000785.jpg``), these numbers are the ids; ``by_name`` says so.
        data_set: A COCO data set; images are looked up in it by file name, a video's frames also
            by ``frame_id``.
    """

    def __init__(self, paths: Sequence[Path], data_set: Mapping[str, Any] | None = None):
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
        """Return the id of an image file, or of a video's frame.

        Raises:
            InputError: The data set lacks it, or has several that it may be.
        """
        if self.listed is None:
            self.last += 1
            return int(path.stem) if self.by_name else self.last
        # Images of a video data set have a frame_id, too, but files of their own.
        found = [
            image
            for image in self.listed.get(path.name, ())
            if index is None or image.get('frame_id') == index
        ]
        if len(found) > 1:
            here = [f'/{p.as_posix().lstrip("/")}' for p in (path.absolute(), path.resolve())]
            names = [Path(image['file_name']).as_posix() for image in found]
            found = [
                image
                for image, name in zip(found, names, strict=True)
                if any(place.endswith('/' + name.lstrip('/')) for place in here)
            ]
            if len(found) != 1:
                raise InputError(
                    f'{path}: may be any of several images of the annotation file: '
                    f'{", ".join(names)}'
                )
        if not found:
            raise InputError(f'{path}: not among the images of the annotation file')
        return found[0]['id']


def categories_of(
    names: Sequence[str], data_set: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return id and name of classes: ids of a data set, COCO's for COCO's classes, else 1, 2, ...

    Raises:
        UserError: The data set has categories, but lacks one of the classes.
    """
    listed = (data_set or {}).get('categories')
    if listed:
        by_name = {category['name']: category['id'] for category in listed}
        missing = [name for name in names if name not in by_name]
        if missing:
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
