"""COCO's scores through faster-coco-eval, where it is installed: the same figures, sooner."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np

MODULES = ('mmdet.evaluation.metrics.coco_metric', 'mmpose.evaluation.metrics.coco_metric')
"""Modules of the metrics that score by a class ``COCOeval``."""
KINDS = ('bbox', 'segm', 'keypoints')


def score_faster(metrics: Iterable[Any]) -> None:
    """Let the COCO metrics among built ones score through faster-coco-eval, if it is installed."""
    if importlib.util.find_spec('faster_coco_eval') is None:
        return
    for metric in metrics:
        names = [base.__module__ for base in type(metric).__mro__ if base.__module__ in MODULES]
        if names:
            module = sys.modules[names[0]]
            metric.compute_metrics = computing_faster(metric.compute_metrics, module)


def computing_faster(compute: Callable[..., Any], module: ModuleType) -> Callable[..., Any]:
    """Return a metric's ``compute_metrics``, during which ``module`` has the faster class."""

    @functools.wraps(compute)
    def faster(*args: Any, **kwargs: Any) -> Any:
        original = module.COCOeval
        module.COCOeval = faster_class(original)
        try:
            return compute(*args, **kwargs)
        finally:
            module.COCOeval = original

    return faster


def faster_class(original: type) -> type:
    """Return a ``COCOeval`` of pycocotools or xtcocotools that matches and counts in C++."""
    return type(original.__name__, (Faster, original), {})


class Faster:
    """What is faster; figures are still summed up by the original class.

    Where faster-coco-eval would count otherwise, or refuses (text as ids), the original does all.
    """

    def evaluate(self) -> None:
        """Match predictions and count."""
        self.counted = self.count() if self.counts_alike() else None
        if self.counted is None:
            super().evaluate()

    def accumulate(self, p: Any = None) -> None:
        """Set precision and recall."""
        if self.counted is None:
            super().accumulate(p)
        else:
            self.eval = self.counted

    def count(self) -> dict[str, Any] | None:
        """Return precision and recall; None where faster-coco-eval cannot count."""
        try:
            from faster_coco_eval import COCOeval_faster
        except (ImportError, ValueError):  # its extension may be built for another NumPy
            return None
        sigmas = getattr(self, 'sigmas', None)  # of xtcocotools
        faster = COCOeval_faster(iouType=self.params.iouType, kpt_oks_sigmas=sigmas)
        faster.cocoGt, faster.cocoDt = self.cocoGt, self.cocoDt
        known = vars(faster.params)
        known.update((name, value) for name, value in vars(self.params).items() if name in known)
        try:
            faster.evaluate()
        except (TypeError, ValueError):
            return None
        return faster.eval

    def counts_alike(self) -> bool:
        """Tell whether faster-coco-eval ignores the same people and predictions as xtcocotools.

        It goes by ``num_keypoints`` and not by the keypoints, always by ``area``, takes the id 0
        for none, and keeps predictions without any keypoint.
        """
        if self.params.iouType != 'keypoints':
            return self.params.iouType in KINDS
        truth = self.cocoGt.anns
        return (
            getattr(self, 'use_area', True)
            and 0 not in truth
            and all(('num_keypoints' in a) and bool(a['num_keypoints']) == seen(a)
                    for a in truth.values())
            and all(map(seen, self.cocoDt.anns.values()))
        )  # fmt: skip


def seen(annotation: dict[str, Any]) -> bool:
    """Tell whether any keypoint is marked or predicted."""
    return bool(np.any(np.asarray(annotation['keypoints'])[2::3] > 0))
