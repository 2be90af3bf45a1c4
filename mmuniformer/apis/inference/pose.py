"""Top-down pose estimation: keypoints in boxes, COCO records, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from mmuniformer.apis.inference.boxes import BoxFile, Detected, WholeImage
from mmuniformer.apis.inference.network import Network, NetworkTask
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.datasets.checks.pose import outputs_of
from mmuniformer.errors import UserError
from mmuniformer.visualization.draw import colors, draw_poses

SCORED_FROM = 0.2
"""Keypoints with a lower score do not count in an instance's, as in mmpose's ``CocoMetric``."""

MIN_BOX_SIDE = 1.0
"""Pixels; nothing can be seen in a thinner box."""


class PoseTask(NetworkTask):
    """Predicts keypoints. ``skipped`` counts the boxes of each frame, by id, that are not used.

    ``finder`` says where the instances are (None: each image is one person), which go through the
    network ``batch_size`` at a time. Keypoints below ``score_thr`` are not drawn; the records hold
    all.

    Raises:
        UserError: The model has another number of keypoints than are named.
    """

    unit = 'poses'

    def __init__(
        self,
        network: Network,
        finder: WholeImage | BoxFile | Detected | None = None,
        score_thr: float = 0.3,
        batch_size: int = 1,
    ):
        self.network = network
        self.finder = finder or WholeImage()
        self.skipped: dict[Any, int] = {}
        self.score_thr = score_thr
        self.batch_size = batch_size
        meta, outputs = network.meta, outputs_of(network.model)
        count = meta.get('num_keypoints', 0)
        if not count:
            raise UserError(
                f'{network.config}: neither the checkpoint nor the config describes keypoints: set '
                'test_dataloader.dataset.metainfo'
            )
        if outputs and outputs.number != outputs.per_keypoint * count:
            raise UserError(
                f'{network.config}: the head has {outputs.number} outputs, {outputs.per_keypoint} '
                f'for each keypoint, but the checkpoint or config describes {count} keypoints: set '
                'test_dataloader.dataset.metainfo'
            )
        self.links = [tuple(link) for link in meta['skeleton_links']]
        self.link_colors = colors(meta.get('skeleton_link_colors'), len(self.links))
        self.point_colors = colors(meta.get('keypoint_colors'), count)
        names = [meta['keypoint_id2name'][k] for k in range(count)]
        skeleton = [[a + 1, b + 1] for a, b in self.links]  # COCO counts keypoints from 1
        self.categories = [
            {**category, 'keypoints': names, 'skeleton': skeleton}
            for category in self.finder.categories
        ]

    def prepare(self, frame: Frame) -> Frame:
        """Run the test pipeline of the detector, if there is one."""
        return self.finder.detector.prepare(frame) if isinstance(self.finder, Detected) else frame

    def __call__(self, frames: Sequence[Frame]) -> list[InstanceData]:
        """Find instances in frames and predict their keypoints.

        Returns:
            For each the instances, in arrays: ``bboxes`` ``(N, 4)`` x1, y1, x2, y2,
            ``bbox_scores``, ``labels`` (indices into ``categories``), ``keypoints``
            ``(N, K, 2)`` and ``keypoint_scores`` ``(N, K)``.
        """
        count = len(self.point_colors)
        results = []
        for boxes, samples in self.estimate(frames):
            points = np.array([s.pred_instances.keypoints[0] for s in samples])
            scores = np.array([s.pred_instances.keypoint_scores[0] for s in samples])
            results.append(
                InstanceData(
                    bboxes=boxes[:, :4],
                    bbox_scores=boxes[:, 4],
                    labels=boxes[:, 5].astype(int),
                    keypoints=points.reshape(-1, count, 2),
                    keypoint_scores=scores.reshape(-1, count),
                )
            )
        return results

    def samples(self, frames: Sequence[Frame]) -> list[Any]:
        """Find instances in frames and predict: data samples with all instances of a frame."""
        from mmpose.structures import PoseDataSample, merge_data_samples

        count = len(self.point_colors)
        nothing = InstanceData(
            bboxes=np.empty((0, 4)), bbox_scores=np.empty(0),
            keypoints=np.empty((0, count, 2)), keypoint_scores=np.empty((0, count)),
        )  # fmt: skip
        return [
            merge_data_samples(samples) if samples else PoseDataSample(pred_instances=nothing)
            for _, samples in self.estimate(frames)
        ]

    def estimate(self, frames: Sequence[Frame]) -> list[tuple[np.ndarray, list[Any]]]:
        """Return the boxes that are used in each frame, and a data sample for each box."""
        found, samples = [], []
        for frame, boxes in zip(frames, self.finder(frames), strict=True):
            sides = boxes[:, 2:4] - boxes[:, :2]
            used = (boxes[:, 5] >= 0) & (sides.min(axis=1, initial=np.inf) >= MIN_BOX_SIDE)
            self.skipped[frame.id] = int((~used).sum())
            found.append(boxes[used].astype(np.float32))
            common = {**self.network.meta, 'img': frame.image, 'img_id': frame.id}
            samples += [
                {**common, 'bbox': box[None, :4], 'bbox_score': box[4:5]} for box in found[-1]
            ]
        estimates = []
        for start in range(0, len(samples), self.batch_size):
            chunk = samples[start : start + self.batch_size]
            estimates += self.network(list(map(self.network.prepare, chunk)))
        rest = iter(estimates)
        return [(boxes, list(islice(rest, len(boxes)))) for boxes in found]

    def records(self, frame: Frame, result: InstanceData) -> list[dict[str, Any]]:
        """Return COCO keypoint results; an instance's score is the box's times the keypoints'."""
        records = []
        for i, (x1, y1, x2, y2) in enumerate(result.bboxes.tolist()):
            scores = result.keypoint_scores[i]
            certain = scores[scores > SCORED_FROM]
            score = float(result.bbox_scores[i] * certain.mean()) if len(certain) else 0.0
            triples = np.column_stack([result.keypoints[i], scores]).astype(float)
            records.append(
                {
                    'image_id': frame.id,
                    'category_id': self.categories[result.labels[i]]['id'],
                    'keypoints': triples.round(3).ravel().tolist(),
                    'score': round(score, 5),
                    'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                }
            )
        return records

    def draw(self, image: np.ndarray, result: InstanceData) -> np.ndarray:
        """Draw skeletons and boxes."""
        return draw_poses(
            image, result.bboxes, result.keypoints, result.keypoint_scores >= self.score_thr,
            self.links, self.link_colors, self.point_colors,
        )  # fmt: skip
