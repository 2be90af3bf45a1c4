"""Annotation files in JSON: what is wrong in them, and what a config has to agree with."""

from __future__ import annotations

import functools
import json
import reprlib
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np

from mmuniformer.datasets.checks.images import FILES_CHECKED
from mmuniformer.errors import DataError

FARTHEST = 1e6
"""Pixels from the origin that a polygon may reach; far beyond, pycocotools ends the process."""
WHOLE_BODY = ('keypoints', 'foot_kpts', 'face_kpts', 'lefthand_kpts', 'righthand_kpts')
"""Fields that make up the keypoints of COCO-WholeBody, in this order."""

NOUNS = {
    'images': 'image',
    'categories': 'category',
    'annotations': 'annotation',
    'segments_info': 'segment',
    'people': 'person',
}
"""Tables of annotation files, and what an entry of each is."""


@dataclass(frozen=True)
class Contents:
    """What is kept of an annotation file.

    Attributes:
        images: The first images.
        categories: Id and name of each category.
        used: Ids of categories that have annotations.
        boxes: Ids of those with a bounding box that training keeps.
        masks: Ids of those with a mask, too.
        bad_masks: What is wrong with the first bad mask of a category, by its id.
        people: Instances that top-down training keeps.
        keypoints: Keypoints of an instance; None without any.
    """

    images: tuple[dict[str, Any], ...] = ()
    categories: tuple[tuple[Any, str], ...] = ()
    used: frozenset = frozenset()
    boxes: frozenset = frozenset()
    masks: frozenset = frozenset()
    bad_masks: Mapping[Any, str] = field(default_factory=dict)
    people: int = 0
    keypoints: int | None = None


def contents(path: Path, form: str) -> Contents:
    """Read an annotation file, once while it does not change.

    Args:
        path: The file.
        form: The dataset type whose format it has, as in ``mmdet.CocoDataset``.

    Raises:
        DataError: It is missing, or something in it cannot be used; names the entry.
    """
    try:
        state = path.stat()
        return parse(path, form, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise DataError(
            f'{path}: {error.strerror}. Say where your annotations are: dataset.data_root and '
            "dataset.ann_file of the data loaders, and the evaluators' ann_file"
        ) from None


@functools.lru_cache(maxsize=32)
def parse(path: Path, form: str, changed: int, size: int) -> Contents:
    """Read a file in the state that ``changed`` (time in ns) and ``size`` (bytes) stand for."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        state = f'is no JSON ({error})' if size else 'is empty'
        raise DataError(f'{path} {state}: give a file of annotations') from None
    if form == 'mmpose.MpiiDataset':
        return read_mpii(Table(path, 'people', content))
    pose = form.startswith('mmpose')
    tables = {}
    for name in ('images', 'categories', 'annotations'):
        needed = name == 'images' or (name == 'categories' and not pose)
        entries = content.get(name, None if needed else []) if isinstance(content, dict) else None
        tables[name] = Table(path, name, entries)
        if needed and not entries:
            raise DataError(f'{path} has an empty list of {name}: nothing can be read')
    images, categories, annotations = tables.values()
    known = images.ids(int, float) if pose else images.ids()
    file = 'coco_url' if form == 'mmdet.LVISV1Dataset' else 'file_name'
    names = images.column(file)
    bad_names = [not isinstance(name, str) or not name or '\0' in name for name in names]
    images.refuse(bad_names, file, 'a file name')
    size = {key: images.numbers(key, optional=pose) for key in ('width', 'height')}
    for key, pixels in size.items():
        images.refuse(pixels <= 0, key, 'a number of pixels')
    if form == 'mmdet.CocoPanopticDataset':
        categories.column('isthing')
        annotations = segments(annotations, known)
    else:
        annotations.ids()
    owners = annotations.known('image_id', known, 'images')
    row = {key: number for number, key in enumerate(known)}
    rows = np.fromiter(map(row.__getitem__, owners), int, len(owners))
    widths, heights = size['width'][rows], size['height'][rows]
    found = Contents(
        tuple({**image, 'file_name': image[file]} for image in images.entries[:FILES_CHECKED])
    )
    if pose:
        whole_body = form == 'mmpose.CocoWholeBodyDataset'
        return read_people(annotations, whole_body, widths, heights, found)
    labels = categories.ids()
    annotations.known('category_id', labels, 'categories')
    found = replace(found, categories=tuple(zip(labels, categories.column('name'), strict=True)))
    return read_instances(annotations, widths, heights, found)


class Table:
    """A list of entries of an annotation file, checked a field at a time."""

    def __init__(self, path: Path, name: str, entries: Any):
        self.path, self.name, self.entries = path, name, entries
        if entries is None:
            raise DataError(f'{path} has no {name}: it is no annotation file of this dataset')
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise DataError(f'{path}: {name} is no list of objects')

    def where(self, keep: np.ndarray) -> Table:
        """Return a part of the table."""
        return Table(self.path, self.name, list(compress(self.entries, keep)))

    def flags(self, name: str) -> np.ndarray:
        """Return where a field is there and not 0."""
        return np.array([bool(entry.get(name)) for entry in self.entries], bool)

    def describe(self, number: int) -> str:
        """Name an entry, by its id where it has one."""
        key = self.entries[number].get('id')
        name = f'number {number}' if key is None else repr(key)
        return f'{self.path}: {NOUNS[self.name]} {name}'

    def refuse(self, wrong: Iterable[bool], name: str, expected: str) -> None:
        """Refuse the first entry that is wrong."""
        for number in compress(range(len(self.entries)), wrong):
            found = reprlib.repr(self.entries[number].get(name))
            raise DataError(f'{self.describe(number)}: {name} is {found}, not {expected}')

    def column(self, name: str) -> list[Any]:
        """Return a field of all entries; refuse one that lacks it."""
        try:
            return [entry[name] for entry in self.entries]
        except KeyError:
            number = next(n for n, entry in enumerate(self.entries) if name not in entry)
            raise DataError(f'{self.describe(number)} has no {name}: add it to the file') from None

    def ids(self, *kinds: type) -> list[Any]:
        """Return the ids; refuse other kinds of values, and those that occur twice."""
        ids, kinds = self.column('id'), kinds or (int, float, str)
        if not set(map(type, ids)) <= set(kinds):
            self.refuse((type(key) not in kinds for key in ids), 'id', 'an id')
        if len(set(ids)) != len(ids):
            key, times = Counter(ids).most_common(1)[0]
            raise DataError(f'{self.path}: {times} {self.name} have the id {key!r}: number them')
        return ids

    def known(self, name: str, ids: Iterable[Any], table: str) -> list[Any]:
        """Return references to another table; refuse one that leads nowhere."""
        values, ids = self.column(name), set(ids)
        wrong = (isinstance(value, (list, dict)) or value not in ids for value in values)
        self.refuse(wrong, name, f'in its {table}: add it there or remove the annotation')
        return values

    def numbers(self, name: str, *shape: int, optional: bool = False) -> np.ndarray:
        """Return a field of finite numbers, ``(entries, *shape)``; refuse other values.

        Optional ones that are absent are NaN.
        """
        values = [entry.get(name) for entry in self.entries] if optional else self.column(name)
        if (found := as_numbers(values, (len(values), *shape))) is not None:
            return found
        absent = np.full(shape, np.nan)
        rows = [
            absent if optional and value is None else as_numbers(value, shape) for value in values
        ]
        count = ' x '.join(map(str, shape))
        what = f'{count} finite numbers' if shape else 'a finite number'
        self.refuse((row is None for row in rows), name, what)
        return np.array(rows, float)


def as_numbers(values: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return finite numbers as an array; None if they are something else or of another shape."""
    try:
        found = np.array(values)
    except ValueError:  # lists of several lengths
        return None
    if not found.size and 0 in shape:
        return np.zeros(shape)
    sound = found.shape == shape and found.dtype.kind in 'iuf' and np.isfinite(found).all()
    return found.astype(float) if sound else None


def segments(annotations: Table, known: Sequence[Any]) -> Table:
    """Return the segments of panoptic annotations, each with the id of its image."""
    owners = annotations.known('image_id', known, 'images')
    inner = annotations.column('segments_info')
    wrong = (not isinstance(each, list) for each in inner)
    annotations.refuse(wrong, 'segments_info', 'a list of segments')
    flat = Table(annotations.path, 'segments_info', list(chain.from_iterable(inner)))
    flat.column('id')
    owners = chain.from_iterable([key] * len(each) for key, each in zip(owners, inner, strict=True))
    flat.entries = [
        {**each, 'image_id': key} for each, key in zip(flat.entries, owners, strict=True)
    ]
    return flat


def read_instances(
    table: Table, widths: np.ndarray, heights: np.ndarray, found: Contents
) -> Contents:
    """Check boxes, areas and masks as mmdet reads them; what it leaves out may be as it likes."""
    if (ignored := table.flags('ignore')).any():
        table, widths, heights = table.where(~ignored), widths[~ignored], heights[~ignored]
    x, y, w, h = table.numbers('bbox', 4).T
    kept = (table.numbers('area') > 0) & (w >= 1) & (h >= 1)
    kept &= np.minimum(x + w, widths) > np.maximum(x, 0)
    kept &= np.minimum(y + h, heights) > np.maximum(y, 0)
    masks, bad_masks = read_masks(table, kept, widths, heights)
    kept &= ~table.flags('iscrowd')
    categories = table.column('category_id')
    return replace(
        found,
        used=frozenset(categories),
        boxes=frozenset(compress(categories, kept)),
        masks=frozenset(compress(categories, kept & masks)),
        bad_masks=bad_masks,
    )


def read_masks(
    table: Table, kept: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, dict[Any, str]]:
    """Return which annotations have a mask, and what is wrong with the first bad by category."""
    usable, bad, polygons, owners = np.zeros(len(kept), bool), {}, [], []

    def refuse(number: int, expected: str) -> None:
        entry = table.entries[number]
        if entry['category_id'] not in bad:
            value = reprlib.repr(entry.get('segmentation'))
            text = f'{table.describe(number)}: segmentation is {value}, not {expected}'
            bad[entry['category_id']] = text

    for number in np.flatnonzero(kept).tolist():
        mask = table.entries[number].get('segmentation')
        if isinstance(mask, dict):
            size = heights[number], widths[number]
            usable[number] = is_rle(mask, size)
            if not usable[number]:
                refuse(number, 'a run-length code of [{:g}, {:g}] pixels'.format(*size))
        elif not mask or not isinstance(mask, list):
            refuse(number, 'a list of polygons or a run-length code')
        elif not all(isinstance(part, list) and len(part) % 2 == 0 for part in mask):
            refuse(number, 'a list of polygons [x, y, x, y, ...]')
        else:
            polygons += mask
            owners += [number] * len(mask)
            usable[number] = any(len(part) >= 6 for part in mask)
    try:
        points = np.abs(np.array(array('d', chain.from_iterable(polygons))))
        ends = np.cumsum([len(part) for part in polygons])
        far = np.searchsorted(ends, np.flatnonzero(~(points <= FARTHEST)), side='right')
    except (TypeError, OverflowError):  # text or null among the numbers
        far = [n for n, part in enumerate(polygons) if as_numbers(part, (len(part),)) is None]
    for polygon in far:
        refuse(owners[polygon], f'coordinates within {FARTHEST:,.0f} pixels')
    return usable, bad


def is_rle(mask: Mapping[str, Any], size: tuple[float, float]) -> bool:
    """Tell whether a run-length code is one of an image of this size (height, width)."""
    counts = mask.get('counts')
    if mask.get('size') != list(size):
        return False
    if not isinstance(counts, list):
        return isinstance(counts, str) and counts != ''
    runs = as_numbers(counts, (len(counts),))
    return runs is not None and (runs >= 0).all() and runs.sum() == size[0] * size[1]


def read_people(
    table: Table, whole_body: bool, widths: np.ndarray, heights: np.ndarray, found: Contents
) -> Contents:
    """Check boxes and keypoints as mmpose reads them: where an annotation has both, or always."""
    has = np.array(
        [whole_body or ('bbox' in e and e.get('keypoints', []) != []) for e in table.entries], bool
    )
    if whole_body:
        for name in ('num_keypoints', 'iscrowd', 'segmentation'):
            table.column(name)
    table, widths, heights = table.where(has), widths[has], heights[has]
    if not table.entries:
        return found
    for number in np.flatnonzero(np.isnan(widths + heights)):
        raise DataError(f'{table.describe(number)}: its image has no width or height: add them')
    table.column('category_id')
    x, y, w, h = table.numbers('bbox', 4).T
    kept = np.minimum(x + w, widths - 1) > np.maximum(x, 0)
    kept &= np.minimum(y + h, heights - 1) > np.maximum(y, 0)
    kept &= ~table.flags('iscrowd')
    kept &= np.array([entry.get('num_keypoints') != 0 for entry in table.entries])
    points = np.concatenate(
        [keypoints(table, name) for name in (WHOLE_BODY if whole_body else ('keypoints',))], 1
    )
    kept &= points[..., :2].max((1, 2)) > 0
    return replace(found, people=int(kept.sum()), keypoints=points.shape[1])


def keypoints(table: Table, name: str) -> np.ndarray:
    """Return x, y and visibility of keypoints, ``(annotations, keypoints, 3)``."""
    first = table.column(name)[0]
    count = len(first) if isinstance(first, list) else 0
    if count == 0 or count % 3:
        table.refuse([True], name, 'three numbers (x, y, visibility) a keypoint')
    return table.numbers(name, count).reshape(-1, count // 3, 3)


def read_mpii(table: Table) -> Contents:
    """Check MPII's list of people."""
    if not table.entries:
        raise DataError(f'{table.path} is an empty list: nothing can be read')
    names = table.column('image')
    wrong = (not isinstance(name, str) or not name.split('.')[0].isdigit() for name in names)
    table.refuse(wrong, 'image', 'a file name that is a number, as in 015601864.jpg')
    table.numbers('center', 2)
    table.numbers('scale')
    first = table.column('joints')[0]
    count = len(first) if isinstance(first, list) else 0
    table.numbers('joints', count, 2)
    table.numbers('joints_vis', count)
    images = tuple({'file_name': name} for name in names[:FILES_CHECKED])
    return Contents(images, people=len(names), keypoints=count)
