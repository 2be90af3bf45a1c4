"""Checks on the classes of images and clips, which the frameworks compare deep in a step."""

from __future__ import annotations

import operator
from typing import Any

from torch import nn

from mmuniformer.errors import DataError

COUNTS = {
    'head.num_classes': 'model.head.num_classes',
    'head.loss_module.num_classes': 'model.head.loss.num_classes',
    'data_preprocessor.num_classes': 'model.data_preprocessor.num_classes',
    'cls_head.num_classes': 'model.cls_head.num_classes',
    'data_preprocessor.blending.num_classes': 'model.data_preprocessor.blending.num_classes',
}
"""Where a classifier of the frameworks holds its count of classes, and the setting for it."""


def check_classes(dataset: Any, model: nn.Module) -> None:
    """Refuse a classifier with other than as many classes as its data name.

    Raises:
        DataError: Names the settings.
    """
    names = getattr(dataset, 'metainfo', {}).get('classes')
    if not names or type(model).__module__.partition('.')[0] not in ('mmpretrain', 'mmaction'):
        return
    wrong = [
        f'{setting}={len(names)}'
        for place, setting in COUNTS.items()
        if found_at(model, place) not in (None, len(names))
    ]
    if wrong:
        raise DataError(
            f'{type(dataset).__name__} names {len(names)} classes ({", ".join(names[:3])}, ...), '
            f'and the model has others: set {" ".join(wrong)}, or dataset.metainfo.classes'
        )


def found_at(model: nn.Module, place: str) -> int | None:
    """Return what dotted attributes lead to; None without."""
    try:
        return operator.attrgetter(place)(model)
    except AttributeError:
        return None
