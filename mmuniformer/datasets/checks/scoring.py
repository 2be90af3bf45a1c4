"""Checks, before a run, on what its evaluator will need after an epoch of training."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import METRICS

from mmuniformer.datasets.checks.detection import have_masks
from mmuniformer.datasets.checks.images import FILES_CHECKED
from mmuniformer.datasets.checks.tables import Table, read_coco
from mmuniformer.errors import DataError
from mmuniformer.registry import class_of

NUMBERS = (int, float, bool)


def check_scoring(metrics: Iterable[Any], dataset: Any, split: str) -> None:
    """Check what built metrics will need to score predictions on a dataset.

    Metrics of other types than in ``CHECKS`` pass with a line in the log.

    Args:
        metrics: Those of an evaluator that knows its dataset.
        dataset: The built dataset.
        split: ``'val'`` or ``'test'``, for messages.

    Raises:
        DataError: Names what is missing.
    """
    for metric in metrics:
        kind = type(metric)
        name = f'{kind.__module__.partition(".")[0]}.{kind.__name__}'
        if name in CHECKS:
            CHECKS[name](metric, dataset, split)
        elif name not in NEED_NOTHING:
            print_log(f'what {name} needs is not checked before the run', 'current')


def check_scoring_file(metric: Mapping[str, Any], file: str) -> None:
    """Check a file in COCO's format that a metric, here its config, could not read."""
    for base in getattr(class_of(metric, METRICS), '__mro__', ()):
        framework = base.__module__.partition('.')[0]
        if base.__name__ == 'CocoMetric' and framework in ('mmdet', 'mmpose'):
            read_coco(Path(file), None, pose=framework == 'mmpose')


def check_boxes(metric: Any, dataset: Any, split: str) -> None:
    """Check the file by which mmdet's ``CocoMetric`` scores boxes and masks."""
    content = metric._coco_api
    if content is None or metric.format_only:
        return
    file = f'the file of {split}_evaluator.ann_file'
    classes = metric.dataset_meta.get('classes') or ()
    used = set(content.get_cat_ids(cat_names=classes))
    if len(used) < len(classes):
        names = {each.get('name') for each in content.dataset.get('categories', ())}
        missing = next((name for name in classes if name not in names), classes[0])
        raise DataError(
            f'{file} has {len(used)} of the {len(classes)} classes that are scored, but not '
            f'{missing!r}: set metainfo.classes of the datasets to names in the file, and '
            'num_classes of the heads'
        )
    annotations = annotations_of(content.dataset, file, split)
    annotations = [a for a in annotations if a.get('category_id') in used]
    annotations = Table(file, 'annotation', annotations)
    check_ids_sort(file, content.dataset, annotations)
    if not annotations.numbers('id').all():
        print_log(
            f'{file} has an annotation of id 0, which pycocotools takes for none: what matches '
            'it counts as wrong. Number annotations from 1',
            'current',
            logging.WARNING,
        )
    filled = f', or set {split}_evaluator.type=mmuniformer.datasets.det.FilledCocoMetric'
    annotations.numbers('area', hint=filled)
    crowds = (crowd not in (0, 1) for crowd in annotations.get('iscrowd'))
    annotations.refuse(crowds, 'iscrowd', f'0 or 1{filled}')
    if 'segm' in metric.metrics:
        check_masks(annotations, content.imgs, split)
    if set(metric.metrics) - {'segm'}:
        annotations.numbers('bbox', 4)
    check_ids(dataset, content.imgs, file)


def check_masks(annotations: Table, images: Mapping[Any, Mapping[str, Any]], split: str) -> None:
    """Refuse masks that pycocotools cannot read: two points at first are a box to it."""
    found = [images.get(key, {}) for key in annotations.get('image_id')]
    sized = Table(annotations.path, 'image', found)
    annotations.sizes = np.stack([sized.numbers(side) for side in ('width', 'height')], 1)
    have_masks(annotations, f', or set {split}_evaluator.metric=bbox')
    masks = annotations.get('segmentation')
    short = (isinstance(mask, list) and len(mask[0]) < 6 for mask in masks)
    annotations.refuse(short, 'segmentation', 'three points or more in the first polygon')


def check_keypoints(metric: Any, dataset: Any, split: str) -> None:
    """Check the file by which mmpose's ``CocoMetric`` scores keypoints, and the sigmas."""
    meta = metric.dataset_meta
    count, sigmas = meta['num_keypoints'], meta['sigmas']
    if len(sigmas) != count:
        raise DataError(
            f'metainfo of the datasets has {len(sigmas)} sigmas for {count} keypoints: give as many'
        )
    if metric.coco is None or metric.format_only:
        return
    file, content = f'the file of {split}_evaluator.ann_file', metric.coco.dataset
    annotations = Table(file, 'annotation', annotations_of(content, file, split))
    check_ids_sort(file, content, annotations)
    if metric.use_area:
        annotations.numbers('area', hint=f', or set {split}_evaluator.use_area=False')
    annotations.numbers('bbox', 4)
    crowds = (crowd not in (0, 1) for crowd in annotations.get('iscrowd'))
    annotations.refuse(crowds, 'iscrowd', '0 or 1')
    need(annotations, 'keypoints', 'x, y and visibility of each keypoint', list)
    if type(metric).__name__ != 'CocoWholeBodyMetric' and metric.gt_converter is None:
        annotations.numbers('keypoints', 3 * count, hint=f' for {count} keypoints')
    if metric.iou_type == 'keypoints_crowd':
        images = Table(file, 'image', content['images'])
        need(images, 'crowdIndex', f'a number, or set {split}_evaluator.iou_type=keypoints')
    check_ids(dataset, metric.coco.imgs, file)


def check_head_sizes(metric: Any, dataset: Any, split: str) -> None:
    """Refuse MPII's dataset without the file by which mmpose measures PCKh."""
    headless = type(dataset).__name__ == 'MpiiDataset' and not dataset.headbox_file
    if headless and 'head' in metric.norm_item:
        raise DataError(
            f'{type(metric).__name__} measures distances in head sizes, and there are none: set '
            f"{split}_dataloader.dataset.headbox_file to MPII's mpii_gt_val.mat"
        )


def check_lvis(metric: Any, dataset: Any, split: str) -> None:
    """Refuse a release of lvis that fails when it sums up."""
    import lvis

    if not hasattr(np, 'float') and 'np.float)' in inspect.getsource(lvis.LVISEval):
        raise DataError(
            'the installed lvis scores with numpy.float, which NumPy 1.24 dropped: pip install '
            '--no-deps git+https://github.com/lvis-dataset/lvis-api.git'
        )


def annotations_of(content: Mapping[str, Any], file: str, split: str) -> list[Any]:
    """Return what a file annotates; refuse one of images alone, as COCO's test data come."""
    if 'annotations' not in content:
        raise DataError(
            f'{file} has no annotations to score by: give one that has, or set '
            f'{split}_evaluator.format_only=True and {split}_evaluator.outfile_prefix'
        )
    return content['annotations']


def check_ids_sort(file: str, content: Mapping[str, Any], annotations: Table) -> None:
    """Refuse ids that COCO's scoring cannot sort or count."""
    annotations.numbers('id')
    for name, field in (('image', 'images'), ('category', 'categories')):
        table = Table(file, name, content.get(field))
        texts = [isinstance(key, str) for key in table.get('id')]
        if not all(texts):
            table.refuse(texts, 'id', 'a number, as others have')


def need(table: Table, field: str, what: str, *kinds: type) -> None:
    """Refuse the first entry whose field is missing or of no kind in question."""
    wrong = (type(value) not in (kinds or NUMBERS) for value in table.get(field))
    table.refuse(wrong, field, what)


def check_ids(dataset: Any, images: Any, file: str) -> None:
    """Refuse a file that lacks the first images of a dataset."""
    count = len(dataset) if isinstance(dataset, BaseDataset) else 0
    for index in range(min(count, FILES_CHECKED)):
        key = dataset.get_data_info(index).get('img_id')
        if key not in images:
            raise DataError(
                f'{file} has no image of id {key!r}, which is in {dataset.ann_file}: name the same '
                'file for both'
            )


CHECKS = {
    'mmdet.CocoMetric': check_boxes,
    'mmuniformer.FilledCocoMetric': check_boxes,
    'mmpose.CocoMetric': check_keypoints,
    'mmpose.CocoWholeBodyMetric': check_keypoints,
    'mmpose.MpiiPCKAccuracy': check_head_sizes,
    'mmdet.LVISMetric': check_lvis,
}
"""What checks a metric's needs, by its type."""
NEED_NOTHING = {
    *('mmseg.IoUMetric', 'mmdet.VOCMetric', 'mmpose.PCKAccuracy'),
    *('mmengine.DumpResults', 'mmdet.DumpDetResults'),
}
"""Metrics that need no more than what their dataset loads."""
