"""Detection and instance segmentation: predictions, COCO records, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from mmuniformer.apis.inference.coco import DataSet, categories_of, encode_mask
from mmuniformer.apis.inference.network import FrameTask, Network
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.visualization.draw import colors, draw_instances


class DetTask(FrameTask):
    """Predicts boxes and masks of at least ``score_thr``.

    The records take the category ids of a COCO data set, ``data_set``.

    Raises:
        UserError: The names are not as many as the model's classes.
    """

    unit = 'instances'

    def __init__(self, network: Network, score_thr: float = 0.3, data_set: DataSet = None):
        self.network = network
        self.score_thr = score_thr
        head = getattr(getattr(network.model, 'roi_head', network.model), 'bbox_head', None)
        self.classes = network.class_names(head)
        self.categories = categories_of(self.classes, data_set)
        self.colors = colors(network.meta.get('palette'), len(self.classes))

    def __call__(self, frames: Sequence[Frame]) -> list[InstanceData]:
        """Predict on frames.

        Returns:
            For each what was found, best first, in arrays: ``bboxes`` ``(N, 4)`` x1, y1, x2, y2,
            ``scores``, ``labels`` (class indices) and, from a model with masks, ``masks``
            ``(N, H, W)`` boolean.
        """
        found = []
        for sample in self.samples(frames):
            each, kept = sample.pred_instances, sample.pred_instances.scores >= self.score_thr
            # Indexing copies the masks.
            found.append((each if kept.all() else each[kept]).cpu().numpy())
        return found

    def records(self, frame: Frame, result: InstanceData) -> list[dict[str, Any]]:
        """Return COCO results: bbox and, of a model with masks, segmentation."""
        records = []
        for i, (x1, y1, x2, y2) in enumerate(result.bboxes.tolist()):
            record = {
                'image_id': frame.id,
                'category_id': self.categories[result.labels[i]]['id'],
                'bbox': [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                'score': round(float(result.scores[i]), 5),
            }
            if 'masks' in result:
                record['segmentation'] = encode_mask(result.masks[i])
            records.append(record)
        return records

    def draw(self, image: np.ndarray, result: InstanceData) -> np.ndarray:
        """Draw masks, boxes, names and scores."""
        labels = [
            f'{self.classes[k]} {s:.2f}' for k, s in zip(result.labels, result.scores, strict=True)
        ]
        color_of = [self.colors[label] for label in result.labels]
        return draw_instances(image, result.bboxes, labels, color_of, result.get('masks'))
