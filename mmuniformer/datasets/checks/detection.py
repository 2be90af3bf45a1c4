"""Checks on the annotations that mmdet reads: COCO and Pascal VOC."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain, product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmuniformer.datasets.checks.images import FILES_CHECKED, check_images
from mmuniformer.datasets.checks.tables import Table, as_numbers, fill_in, read_coco
from mmuniformer.errors import DataError

FARTHEST = 1e6
"""Pixels from the origin that a polygon may reach; far beyond, pycocotools ends the process."""

LONGEST = 1e7
"""Pixels of the longest outline of a polygon; pycocotools takes 80 bytes for each."""

MOST_CODES = 7
"""Characters of a number in a run-length code: 35 bits."""

AREA = (
    'a finite number of pixels, or set type=mmuniformer.datasets.det.FilledCocoDataset of the '
    "datasets, which takes the box's"
)
MASK = 'polygons [[x, y, x, y, ...], ...] or a run-length code of the size of its image'
BOXES_ALONE = ', or train boxes alone, as with faster-rcnn_uniformer-small-h14_fpn_amp-1x_coco'
"""What the fields of an annotation should be."""


def check_coco(cfg: Mapping[str, Any], dataset: BaseDataset, content: Any = None) -> None:
    """Check a dataset in COCO's format; annotations that mmdet leaves out may be as they like."""
    path = Path(dataset.ann_file)
    images, categories, annotations = read_coco(path, content, pose=False)
    annotations = annotations.where(~annotations.flags('ignore'))
    if getattr(dataset, 'fills_in', False):
        annotations.numbers('bbox', 4)
        fill_in(annotations.entries)
    labels = annotations.get('category_id')
    chosen = check_classes(cfg, dataset, categories, set(labels))
    annotations.refuse((area is None for area in annotations.get('area')), 'area', AREA)
    kept = (annotations.numbers('area') > 0) & annotations.inside(least=1)
    kept &= np.array([label in chosen for label in labels], bool)
    if any(step.get('with_mask') for step in cfg['pipeline']):
        kept[kept] = have_masks(annotations.where(kept))
    kept &= ~annotations.flags('iscrowd')
    if labels and not dataset.test_mode and not kept.any():  # none at all may be meant
        raise DataError(
            f'{path} has nothing to learn: each annotation is a crowd, of a category that is not '
            'chosen, without a mask or area, or its box is below 1 pixel or beyond its image'
        )
    check_images(path, dataset.data_prefix.get('img'), images.entries)


def chooses(cfg: Mapping[str, Any]) -> bool:
    """Tell whether a config chooses classes, so that annotations of others are left out."""
    return bool((cfg.get('metainfo') or {}).get('classes'))


def have_masks(annotations: Table, hint: str = BOXES_ALONE) -> np.ndarray:
    """Return which annotations have a mask that mmdet keeps; refuse one that is broken.

    ``hint`` is the way out, beside a mask that is sound.
    """
    masks = annotations.get('segmentation')
    wrong = (not is_mask(*pair) for pair in zip(masks, annotations.sizes, strict=True))
    annotations.refuse(wrong, 'segmentation', MASK + hint)
    polygons = [mask if isinstance(mask, list) else [] for mask in masks]
    if far(polygons):  # all at once is fast
        what = f'coordinates within {FARTHEST:,.0f} pixels, outlines of up to {LONGEST:,.0f}'
        annotations.refuse((far([each]) for each in polygons), 'segmentation', what)
    return np.array([isinstance(m, dict) or max(map(len, m)) >= 6 for m in masks], bool)


def is_mask(mask: Any, size: np.ndarray) -> bool:
    """Tell whether a mask is in a form that pycocotools reads; ``size`` is (width, height)."""
    if isinstance(mask, list):
        return mask != [] and all(type(part) is list and len(part) % 2 == 0 for part in mask)
    if not isinstance(mask, dict) or mask.get('size') != size[::-1].tolist():
        return False
    counts = mask.get('counts')
    if isinstance(counts, str):
        runs = run_lengths(counts)
    else:
        runs = as_numbers(counts) if isinstance(counts, list) else None
    if runs is None or (runs < 0).any() or (runs % 1).any():
        return False
    return runs.sum() == size.prod()


def run_lengths(counts: str) -> np.ndarray | None:
    """Return the run lengths of COCO's compressed form; None if it is something else.

    Each character has five bits of a number, the lowest first, and a sixth that says whether it
    goes on. From the fourth on, a number is the difference to the one before the last.

    Example:
        >>> run_lengths('k36h00').tolist()
        [123, 6, 24, 6]
    """
    codes = np.array(list(map(ord, counts)), np.int64) - ord('0')
    ends = np.flatnonzero(codes & 32 == 0)
    if not codes.size or codes.min() < 0 or codes.max() > 63 or ends[-1:] != len(codes) - 1:
        return None
    starts = np.append(0, ends[:-1] + 1)
    lengths = ends - starts + 1
    if lengths.max() > MOST_CODES:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= (codes[ends] & 16 != 0) << 5 * lengths
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def far(masks: list[list[list[float]]]) -> bool:
    """Tell whether polygons have coordinates that are far off or no numbers, or long outlines."""
    parts = list(chain.from_iterable(masks))
    points = as_numbers(list(chain.from_iterable(parts)), limit=FARTHEST)
    if points is None:
        return True
    longest = max(map(len, parts), default=0) * np.abs(points).max(initial=0)  # at most
    return longest > LONGEST and any(outline(part) > LONGEST for part in parts)


def outline(part: list[float]) -> float:
    """Return the length of a polygon's outline: the longer of each edge's width and height."""
    points = np.reshape(part, (-1, 2))
    return np.abs(points - np.roll(points, 1, 0)).max(1, initial=0).sum()


def check_classes(
    cfg: Mapping[str, Any], dataset: BaseDataset, categories: Table, used: set[Any]
) -> set[Any]:
    """Return the ids of the categories that a dataset takes; ``used`` ones have annotations."""
    path, classes = categories.path, dataset.metainfo.get('classes') or ()
    if isinstance(classes, str):  # mmengine reads a text file, and keeps the name if it fails
        raise DataError(f'metainfo.classes={classes!r}: No such file; or give a list of names')
    names = dict(zip(categories.get('id'), categories.get('name'), strict=True))
    counts = Counter(names.values())
    wrong = [c for c in classes if c and (counts[c] > 1 or not counts[c] and chooses(cfg))]
    if wrong:
        raise DataError(
            f'{path} should have one category {listed(wrong)}, and has {listed(names.values())}: '
            'correct it or metainfo.classes'
        )
    refuse_unknown(cfg, path, {names[key] for key in used} - set(classes))
    if [name for name in names.values() if name in classes] != [name for name in classes if name]:
        print_log(
            f'{path} has other categories than metainfo.classes, or in another order: mmdet '
            'numbers them as the file does, so that predictions bear wrong names',
            'current',
            logging.WARNING,
        )
    return {key for key, name in names.items() if name in classes}


def refuse_unknown(cfg: Mapping[str, Any], path: Path, unknown: set[str]) -> None:
    """Refuse annotations of what is no class, unless the config chooses classes."""
    if unknown and not chooses(cfg):
        raise DataError(
            f'{path} annotates {listed(sorted(unknown))}, which the dataset does not know and '
            'would leave out: set metainfo.classes of the datasets, and num_classes of the heads'
        )


def listed(names: Collection[str]) -> str:
    """Return the first names for a message."""
    return ', '.join(map(repr, list(names)[:8])) + ', ...' * (len(names) > 8)


def check_xml(cfg: Mapping[str, Any], dataset: BaseDataset) -> None:
    """Check the first images of a dataset that has an XML file for each, as Pascal VOC."""
    root, path = Path(dataset.sub_data_root), Path(dataset.ann_file)
    try:
        ids = list(filter(None, path.read_text(encoding='utf-8').splitlines()))
        if not ids:
            raise ValueError('no names of images')
        for key in ids[:FILES_CHECKED]:
            path = root / dataset.ann_subdir / f'{key}.xml'
            tree = ElementTree.parse(path)
            names = {entry.findtext('name') or '' for entry in tree.iterfind('object')}
            refuse_unknown(cfg, path, names - set(dataset.metainfo.get('classes') or ()))
            for entry, side in product(tree.iterfind('object'), ('xmin', 'ymin', 'xmax', 'ymax')):
                int(float(entry.findtext(f'bndbox/{side}')))  # as mmdet does
            image = {'file_name': f'{key}.jpg'}
            if tree.find('size') is not None:
                sides = ('width', 'height')
                image |= {side: int(tree.findtext(f'size/{side}')) for side in sides}
            check_images(path, root / dataset.img_subdir, [image])
    except (ElementTree.ParseError, OSError, OverflowError, TypeError, ValueError) as error:
        raise DataError(
            f'{path} cannot be read as Pascal VOC ({error}): correct it, or set dataset.data_root, '
            'dataset.ann_file and dataset.data_prefix'
        ) from None
