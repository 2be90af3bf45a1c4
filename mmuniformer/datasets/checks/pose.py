"""Checks on the annotations that mmpose reads (COCO style), and on a model's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch import nn

from mmuniformer.datasets.checks.config import dataset_meta, nested
from mmuniformer.datasets.checks.images import check_images
from mmuniformer.datasets.checks.tables import ID, Table, as_numbers, read_coco
from mmuniformer.errors import DataError
from mmuniformer.registry import class_of, type_name

CONVERTERS = ('KeypointConverter', 'SingleHandConverter')
"""Steps of mmpose's pipelines after which a sample has another number of keypoints."""
DECODERS = {'MSRAHeatmap', 'UDPHeatmap', 'MegviiHeatmap', 'SimCCLabel', 'RegressionLabel'}
"""mmpose's codecs for which a head has one output a keypoint (UDP's combined ones: three)."""


def check_pose(cfg: Mapping[str, Any], dataset: BaseDataset, content: Any = None) -> None:
    """Check a COCO-style dataset; annotations that mmpose leaves out may be as they like."""
    path, boxes = Path(dataset.ann_file), dataset.bbox_file
    if boxes and '://' not in boxes and not Path(boxes).is_file():
        raise DataError(f'{boxes} does not exist: set dataset.bbox_file to detected boxes, or None')
    images, _, annotations = read_coco(path, content, pose=True)
    if boxes and '://' not in boxes:
        check_box_file(Path(boxes), images)
    has = ['bbox' in e and e.get('keypoints', []) != [] for e in annotations.entries]
    counted = annotations.flags('num_keypoints') & ~annotations.flags('iscrowd')
    wrong = (e.get('keypoints') == [] for e in annotations.where(counted).entries)
    annotations.where(counted).refuse(wrong, 'keypoints', 'as many as num_keypoints counts')
    people = annotations.where(np.array(has, bool))
    kept = people.inside(margin=1) & ~people.flags('iscrowd')
    kept &= np.array([count != 0 for count in people.get('num_keypoints')], bool)
    count = dataset.metainfo.get('num_keypoints')
    if people.entries:
        people.column('category_id', *ID)
        people.where(np.array(['area' in e for e in people.entries])).numbers('area')
        length = len(people.column('keypoints', list)[0])
        points = people.numbers('keypoints', max(3, length // 3 * 3)).reshape(len(people), -1, 3)
        kept &= points[..., :2].max((1, 2)) > 0
        if not boxes and length != 3 * count and converted(cfg) is None:
            raise DataError(
                f'{path} has {length // 3} keypoints a person, and {type_name(cfg)} {count}: '
                'choose the dataset.type of your keypoints'
            )
    if not kept.any() and not boxes and (dataset.data_mode == 'topdown' or not dataset.test_mode):
        raise DataError(
            f'{path} has no person to crop: each annotation is a crowd, or has no keypoint that is '
            'visible, or no bounding box with an area'
        )
    check_images(path, dataset.data_prefix.get('img'), images.entries)


def check_box_file(path: Path, images: Table) -> None:
    """Check detected boxes; those of another ``category_id`` than 1 may be as they like."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f'{path} cannot be read as JSON ({error})') from None
    boxes = Table(path, 'box', content)
    kept = boxes.where(np.array([label == 1 for label in boxes.get('category_id')], bool))
    if content and not len(kept):
        raise DataError(
            f'{path} has no box with category_id 1, and mmpose crops no others: change the ids, or '
            'set dataset.bbox_file=None'
        )
    kept.rows('image_id', images.ids(*ID))
    wrong = (as_numbers([(box or [])[:4]], 4) is None for box in kept.get('bbox'))
    kept.refuse(wrong, 'bbox', '4 finite numbers')
    kept.numbers('score')


def converted(dataset: Mapping[str, Any]) -> int | None:
    """Return the number of keypoints that a step of the pipeline makes; None if none does."""
    for step in reversed(dataset['pipeline']):
        if type_name(step) in CONVERTERS:
            return step['num_keypoints']
    return None


class Outputs(NamedTuple):
    """What the head of a pose estimator says of its outputs."""

    key: str
    """Argument of the head that sets their number."""
    number: int
    per_keypoint: int


def outputs_of(model: nn.Module) -> Outputs | None:
    """Return the outputs of a pose estimator; None if they are not counted in keypoints."""
    head = getattr(model, 'head', None)
    decoder = getattr(head, 'decoder', None)
    key = 'num_joints' if hasattr(head, 'num_joints') else 'out_channels'
    number = getattr(head, key, None)
    if type(decoder).__name__ not in DECODERS or not isinstance(number, int):
        return None
    return Outputs(key, number, 3 if getattr(decoder, 'heatmap_type', '') == 'combined' else 1)


def check_outputs(cfg: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse data of another number of keypoints than a pose estimator predicts."""
    outputs = outputs_of(model)
    if outputs is None:
        return
    for _, dataset in nested(cfg):
        count = converted(dataset)
        if count is None and hasattr(class_of(dataset, DATASETS), '_load_metainfo'):
            count = dataset_meta(dataset).get('num_keypoints')
        if count is not None and outputs.per_keypoint * count != outputs.number:
            raise DataError(
                f'{type_name(dataset)} has {count} keypoints, for which model.head.{outputs.key} '
                f'has to be {outputs.per_keypoint * count}; it is {outputs.number}'
            )
