"""Checks on what a classifier of images or clips is trained and tested on: its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from torch import nn

from mmuniformer.datasets.checks.images import file_of
from mmuniformer.errors import DataError

HEADS = ('head', 'cls_head')
"""Of mmpretrain's and mmaction2's classifiers."""
LABELS = ('gt_label', 'label')
"""Of a sample there."""


def check_counts(model: Mapping[str, Any]) -> None:
    """Refuse a classifier's config whose parts count different classes: mixing and losses fail.

    Raises:
        DataError: Names the options that differ.
    """
    for key in HEADS:
        count = (model.get(key) or {}).get('num_classes')
        if count is None:
            continue
        places = (key, 'data_preprocessor', 'train_cfg')
        found = {f'model.{place}': model.get(place) for place in places}
        others = [(name, n) for name, n in counts(found) if n != count]
        if others:
            raise DataError(
                f'model.{key}.num_classes={count}, but '
                + ' and '.join(f'{name}={n}' for name, n in others)
                + ': set all to the number of classes'
            )


def counts(part: Any, name: str = '') -> Iterator[tuple[str, int]]:
    """Yield the dotted name and value of each ``num_classes`` in a config."""
    items = part.items() if isinstance(part, Mapping) else enumerate(part)
    for key, value in items:
        inner = f'{name}.{key}' if name else str(key)
        if key == 'num_classes' and value is not None:
            yield inner, value
        elif isinstance(value, (Mapping, list, tuple)):
            yield from counts(value, inner)


def check_classes(
    dataset: BaseDataset, model: nn.Module, trained: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Check a dataset that is read against the classifier that it is for.

    Args:
        dataset: It, or a wrapper.
        model: Of any task; nothing is checked but of classifiers.
        trained: Class names of a dataset before, if there was one.

    Returns:
        The class names so far: the dataset's, or ``trained``; None of models that classify nothing.

    Raises:
        DataError: A label is beyond the classifier's classes, class names are in another order than
            the folders that labels are numbered by, or not those of ``trained``.
    """
    found = ((key, getattr(getattr(model, key, None), 'num_classes', None)) for key in HEADS)
    key, count = next(((key, n) for key, n in found if n is not None), (None, None))
    if key is None:
        return None
    source = getattr(dataset, 'ann_file', None)
    classes = tuple(dataset.metainfo.get('classes') or ())
    folders = tuple(getattr(dataset, 'folder_to_idx', ()))
    where = source or getattr(dataset, 'img_prefix', None) or type(dataset).__name__
    if folders != classes and set(folders) == set(classes):
        raise DataError(
            f'{where}: labels are numbered by the folders, {", ".join(folders)}, but '
            f'metainfo.classes={classes}: write the names in the order of the folders'
        )
    if trained and classes and trained != classes:
        raise DataError(
            f'{where} has the classes {shown(classes)}, another dataset of this run '
            f'{shown(trained)}: labels would mean different classes; give all the same folders, '
            'or lists with numbers and the same metainfo.classes'
        )
    if source:
        label, index = max((highest(dataset.get_data_info(i)), i) for i in range(len(dataset)))
        if label >= count:
            file = file_of(dataset.get_data_info(index)) or 'a sample'
            raise DataError(
                f'{source}: {file} has the label {label}, but model.{key}.num_classes={count}: '
                f'set it to {label + 1} or more, or correct the list'
            )
    elif len(classes) > count:
        raise DataError(
            f'{where} has {len(classes)} classes, {shown(classes)}, but model.{key}.num_classes='
            f'{count}: set it to {len(classes)}'
        )
    return classes or trained


def highest(sample: Mapping[str, Any]) -> int:
    """Return the highest label of a sample, -1 without one."""
    labels = next((sample[key] for key in LABELS if key in sample), -1)
    return labels if isinstance(labels, int) else int(np.max(labels, initial=-1))


def shown(names: tuple[str, ...], most: int = 6) -> str:
    """Return names as a text, of many the first."""
    return ', '.join(names[:most]) + ', ...' * (len(names) > most)
