"""Detection and instance segmentation: predictions, COCO records, drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmuniformer.apis.inference.coco import category_ids
from mmuniformer.apis.inference.inputs import Shot
from mmuniformer.apis.inference.network import Network
from mmuniformer.errors import UserError
from mmuniformer.visualization.draw import colors, draw_instances


@dataclass(frozen=True)
class Instances:
    """What was found in a picture, best first.

    ``boxes`` ``(N, 4)`` x1, y1, x2, y2; ``scores`` ``(N,)``; ``labels`` ``(N,)`` class indices;
    ``masks`` ``(N, H, W)`` boolean, or None from a model without them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None


class DetTask:
    """Predicts boxes and masks.

    Args:
        network: The detector.
        score_thr: Lowest score of an instance to be kept.
        data_set: A COCO data set whose category ids the records take.

    Raises:
        UserError: The names are not as many as the classes that the model has.
    """

    unit = 'instances'

    def __init__(
        self, network: Network, score_thr: float, data_set: Mapping[str, Any] | None = None
    ):
        self.network = network
        self.score_thr = score_thr
        self.classes = class_names(network, box_classes(network.model))
        ids = category_ids(self.classes, data_set)
        self.categories = [
            {'id': i, 'name': name} for i, name in zip(ids, self.classes, strict=True)
        ]
        self.colours = colors(network.meta.get('palette'), len(self.classes))

    def __call__(self, shots: Sequence[tuple[Shot, Any]]) -> list[Instances]:
        """Predict on pictures, given with their ids."""
        samples = self.network(
            [{'img': shot.image, 'img_id': number, 'img_path': None} for shot, number in shots]
        )
        return [self.instances(sample.pred_instances) for sample in samples]

    def instances(self, found: Any) -> Instances:
        """Return the instances above the threshold, as arrays."""
        found = found[found.scores >= self.score_thr].cpu()
        masks = found.masks.numpy().astype(bool) if 'masks' in found else None
        return Instances(found.bboxes.numpy(), found.scores.numpy(), found.labels.numpy(), masks)

    def records(self, result: Instances, image_id: Any) -> list[dict[str, Any]]:
        """Return COCO results: bbox and, of a model with masks, segmentation."""
        from pycocotools import mask

        records = []
        for i, (x1, y1, x2, y2) in enumerate(result.boxes.tolist()):
            record = {
                'image_id': image_id,
                'category_id': self.categories[result.labels[i]]['id'],
                'bbox': [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                'score': round(float(result.scores[i]), 5),
            }
            if result.masks is not None:
                code = mask.encode(np.asfortranarray(result.masks[i].astype(np.uint8)))
                record['segmentation'] = {**code, 'counts': code['counts'].decode()}
            records.append(record)
        return records

    def draw(self, shot: Shot, result: Instances) -> np.ndarray:
        """Draw masks, boxes, names and scores."""
        labels = [
            f'{self.classes[k]} {s:.2f}' for k, s in zip(result.labels, result.scores, strict=True)
        ]
        colour_of = [self.colours[label] for label in result.labels]
        return draw_instances(shot.image, result.boxes, labels, colour_of, result.masks)


def class_names(network: Network, count: int | None) -> list[str]:
    """Return the names of the classes.

    Raises:
        UserError: There are none, or not as many as the model has classes.
    """
    names = [str(name) for name in network.meta.get('classes') or ()]
    if names and count in (None, len(names)):
        return names
    raise UserError(
        f'{network.config}: the model has {count} classes and the checkpoint or config names '
        f'{len(names)} ({", ".join(names[:3])}...): set them with --cfg-options '
        "test_dataloader.dataset.metainfo.classes=..., or change the model's num_classes"
    )


def box_classes(model: Any) -> int | None:
    """Return how many classes a detector tells apart, where it says so."""
    return head_classes(getattr(getattr(model, 'roi_head', model), 'bbox_head', None))


def head_classes(head: Any) -> int | None:
    """Return how many classes a head, or the last of a cascade of heads, tells apart."""
    if hasattr(head, '__len__'):
        head = head[-1]
    return getattr(head, 'num_classes', None)
