"""COCO files without ``area`` or ``iscrowd`` for mmdet, which needs both."""

from __future__ import annotations

from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric

from mmuniformer.datasets.checks.tables import fill_in


class FilledCoco(COCO):
    """A file whose annotations get what they lack as it is read."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        fill_in(self.dataset.get('annotations', ()))


class FilledCocoDataset(CocoDataset):
    """mmdet's dataset; an annotation without ``area`` has that of its box.

    Example:
        >>> train_dataset = dict(type='mmuniformer.datasets.det.FilledCocoDataset')
    """

    COCOAPI = FilledCoco
    fills_in = True
    """For the checks before a run."""


class FilledCocoMetric(CocoMetric):
    """mmdet's metric; annotations without ``area`` or ``iscrowd`` have their box's, or 0.

    Example:
        >>> val_evaluator = dict(type='mmuniformer.datasets.det.FilledCocoMetric')
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self._coco_api is not None:
            fill_in(self._coco_api.dataset.get('annotations', ()))
