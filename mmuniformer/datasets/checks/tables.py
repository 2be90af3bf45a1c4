"""Annotation files in JSON, as tables that are checked a field at a time."""

from __future__ import annotations

import json
import reprlib
from array import array
from collections import Counter
from collections.abc import Iterable
from itertools import chain, compress
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from mmuniformer.errors import DataError

ID = (int, float, str)
"""What an id may be."""
LARGEST = 1e18
"""What coordinates and areas may reach: NumPy reads integers beyond as objects."""


class Table:
    """Entries of an annotation file, and (width, height) of each one's image in pixels."""

    def __init__(self, path: Path, name: str, entries: Any, sizes: np.ndarray | None = None):
        self.path, self.name, self.entries, self.sizes = path, name, entries, sizes
        if not isinstance(entries, list) or set(map(type, entries)) - {dict}:
            raise DataError(f'{path} has no list of {name} objects, as its dataset.type needs')

    def __len__(self) -> int:
        return len(self.entries)

    def where(self, keep: np.ndarray) -> Table:
        """Return a part of the table."""
        if keep.all():
            return self
        sizes = None if self.sizes is None else self.sizes[keep]
        return Table(self.path, self.name, list(compress(self.entries, keep)), sizes)

    def get(self, field: str) -> list[Any]:
        """Return a field of all entries, None where it is absent."""
        try:
            return list(map(itemgetter(field), self.entries))  # twice as fast
        except KeyError:
            return [entry.get(field) for entry in self.entries]

    def flags(self, field: str) -> np.ndarray:
        """Return where a field is there and not 0."""
        return np.array([bool(value) for value in self.get(field)], bool)

    def refuse(self, wrong: Iterable[bool], field: str, expected: str) -> None:
        """Refuse the first entry that is wrong."""
        for number in compress(range(len(self)), wrong):
            entry = self.entries[number]
            key = repr(entry['id']) if 'id' in entry else f'number {number}'
            found = f'is {reprlib.repr(entry[field])}' if field in entry else 'is missing'
            raise DataError(f'{self.path}: {self.name} {key}: {field} {found}; give {expected}')

    def column(self, field: str, *kinds: type) -> list[Any]:
        """Return a field of all entries; refuse one that lacks it or is of another type."""
        values = self.get(field)
        if set(map(type, values)) - set(kinds):
            expected = ' or '.join(kind.__name__ for kind in kinds)
            wrong = (type(value) not in kinds for value in values)
            self.refuse(wrong, field, f'a value of type {expected}')
        return values

    def ids(self, *kinds: type) -> dict[Any, int]:
        """Return the number of each entry by its id; refuse an id that occurs twice."""
        values = self.column('id', *kinds)
        numbers = dict(zip(values, range(len(values)), strict=True))
        if len(numbers) < len(values):
            key, times = Counter(values).most_common(1)[0]
            raise DataError(f'{self.path}: id {key!r} of {self.name} occurs {times} times')
        return numbers

    def rows(self, field: str, ids: dict[Any, int]) -> np.ndarray:
        """Return the numbers of the entries that an id refers to; refuse one that is not there."""
        values = self.column(field, *ID)
        rows = list(map(ids.get, values))
        wrong = (row is None for row in rows) if None in rows else ()
        self.refuse(wrong, field, 'an id in the file, or remove the annotation')
        return np.array(rows, int)

    def numbers(self, field: str, *shape: int, hint: str = '') -> np.ndarray:
        """Return a field of finite numbers, ``(entries, *shape)``; refuse other values.

        ``hint`` adds a way out.
        """
        values = self.get(field)
        found = as_numbers(values, *shape)
        if found is None:
            wrong = (as_numbers([value], *shape) is None for value in values)
            what = f'{shape[0]} finite numbers' if shape else 'a finite number'
            self.refuse(wrong, field, what + hint)
        return found

    def inside(self, margin: int = 0, least: int = 0) -> np.ndarray:
        """Return which boxes, of sides from ``least`` up, have area in an image less a margin."""
        x, y, w, h = self.numbers('bbox', 4).T
        width, height = self.sizes.T - margin
        kept = (w >= least) & (np.minimum(x + w, width) > np.maximum(x, 0))
        return kept & (h >= least) & (np.minimum(y + h, height) > np.maximum(y, 0))


def as_numbers(values: list[Any], *shape: int, limit: float = LARGEST) -> np.ndarray | None:
    """Return numbers up to a limit, ``(values, *shape)``; None if they are something else."""
    count = len(values)
    try:
        for size in shape:
            if set(map(len, values)) - {size}:
                return None
            values = list(chain.from_iterable(values))
        found = np.asarray(array('d', values)).reshape(count, *shape)
    except (TypeError, OverflowError):
        return None
    return found if (np.abs(found) <= limit).all() else None


def fill_in(annotations: Iterable[dict[str, Any]]) -> None:
    """Give annotations the ``area`` of their box and ``iscrowd`` 0 where they have none.

    Example:
        >>> box = {'bbox': [0, 0, 2, 3]}
        >>> fill_in([box])
        >>> box['area'], box['iscrowd']
        (6, 0)
    """
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)
        if 'area' not in annotation:
            _, _, width, height = annotation['bbox']
            annotation['area'] = width * height


def read_coco(path: Path, content: Any, pose: bool) -> tuple[Table, Table, Table]:
    """Check how the tables of a file in COCO's format, ``content``, refer to each other.

    With None the file is read. Returns images, categories (pose needs none), and annotations with
    the sizes of their images.
    """
    try:
        content = json.loads(path.read_bytes()) if content is None else content
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(
            f'{path} cannot be read as JSON ({error}): correct it, or set dataset.data_root and '
            "dataset.ann_file of the data loaders, and the evaluators' ann_file"
        ) from None
    content = content if isinstance(content, dict) else {}
    images = Table(path, 'image', content.get('images'))
    categories = Table(path, 'category', content.get('categories', [] if pose else None))
    annotations = Table(path, 'annotation', content.get('annotations', []))
    if not images.entries or not (pose or categories.entries):
        raise DataError(f'{path} has an empty list of images or categories')
    rows = annotations.rows('image_id', images.ids(*(int, float) if pose else ID))
    annotations.ids(*ID)
    images.column('file_name', str)
    numbers = categories.ids(*ID)
    if not pose:
        categories.column('name', str)
        annotations.rows('category_id', numbers)
    elif 'categories' in content:
        annotations.column('category_id', *ID)
    sized = np.full(len(images), not pose)
    sized[rows] = True  # mmpose needs the sizes of no other images
    sizes = np.full((len(images), 2), np.nan)
    for side, name in enumerate(('width', 'height')):
        sizes[sized, side] = images.where(sized).numbers(name)
        images.refuse(sizes[:, side] <= 0, name, 'a number of pixels')
    annotations.sizes = sizes[rows]
    return images, categories, annotations
