"""Top-down pose estimation: people's boxes, their key points, COCO records, drawings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmuniformer.apis.inference.coco import PERSON, PeopleBoxes, without_slivers
from mmuniformer.apis.inference.det import DetTask
from mmuniformer.apis.inference.inputs import Shot
from mmuniformer.apis.inference.network import Network
from mmuniformer.errors import UserError
from mmuniformer.visualization.draw import colors, draw_poses

SCORED_FROM = 0.2
"""Key points with a lower score do not count in a person's, as in mmpose's ``CocoMetric``."""

Finder = Callable[[Sequence[tuple[Shot, Any]]], list[np.ndarray]]
"""Gives the people of pictures with their ids: ``(N, 5)`` x1, y1, x2, y2, score each."""


@dataclass(frozen=True)
class People:
    """The people in a picture.

    ``boxes`` ``(N, 5)`` x1, y1, x2, y2, score; ``keypoints`` ``(N, K, 2)``; ``scores`` ``(N, K)``.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray


def whole_picture(shots: Sequence[tuple[Shot, Any]]) -> list[np.ndarray]:
    """Take each picture for one person."""
    sizes = (shot.image.shape[:2] for shot, _ in shots)
    return [np.array([[0, 0, width, height, 1]], dtype=np.float32) for height, width in sizes]


def from_file(boxes: PeopleBoxes) -> Finder:
    """Take people from a file, by picture id."""
    return lambda shots: [boxes(number, *shot.image.shape[:2]) for shot, number in shots]


def from_detector(detector: DetTask) -> Finder:
    """Detect people first.

    Raises:
        UserError: The detector has several classes and none of them is ``person``.
    """
    if PERSON not in detector.classes and len(detector.classes) > 1:
        raise UserError(
            f'{detector.network.config} detects {", ".join(detector.classes[:5])}, but no '
            f'{PERSON}: give a detector of people, or boxes with --boxes'
        )
    wanted = detector.classes.index(PERSON) if PERSON in detector.classes else 0

    def find(shots: Sequence[tuple[Shot, Any]]) -> list[np.ndarray]:
        return [
            without_slivers(np.column_stack([found.boxes, found.scores])[found.labels == wanted])
            for found in detector(shots)
        ]

    return find


class PoseTask:
    """Predicts people's key points.

    Args:
        network: The pose estimator.
        finder: Where the people are.
        score_thr: Lowest score of a key point to be drawn; the records hold all.
        batch_size: People at a time.
        category: COCO's id of people in the records.

    Raises:
        UserError: The key points that the model has are not those that are named.
    """

    unit = 'people'

    def __init__(
        self,
        network: Network,
        finder: Finder,
        score_thr: float,
        batch_size: int = 1,
        category: int = 1,
    ):
        self.network = network
        self.finder = finder
        self.score_thr = score_thr
        self.batch_size = batch_size
        meta = network.meta
        count = meta.get('num_keypoints')
        channels = getattr(network.model.head, 'out_channels', count)
        if count is None or channels != count:
            raise UserError(
                f'{network.config}: the model has {channels} key points and the checkpoint or '
                f'config describes {count}: set test_dataloader.dataset.metainfo'
            )
        self.links = [tuple(link) for link in meta['skeleton_links']]
        self.link_colours = colors(meta.get('skeleton_link_colors'), len(self.links))
        self.point_colours = colors(meta.get('keypoint_colors'), count)
        names = [meta['keypoint_id2name'][k] for k in range(count)]
        skeleton = [[a + 1, b + 1] for a, b in self.links]  # COCO counts key points from 1
        self.categories = [
            {'id': category, 'name': PERSON, 'keypoints': names, 'skeleton': skeleton}
        ]

    def __call__(self, shots: Sequence[tuple[Shot, Any]]) -> list[People]:
        """Predict on pictures, given with their ids."""
        found = self.finder(shots)
        samples = [
            {
                **self.network.meta,
                'img': shot.image,
                'img_id': number,
                'bbox': box[None, :4].astype(np.float32),
                'bbox_score': box[4:].astype(np.float32),
            }
            for (shot, number), boxes in zip(shots, found, strict=True)
            for box in boxes
        ]
        estimates = []
        for start in range(0, len(samples), self.batch_size):
            estimates += self.network(samples[start : start + self.batch_size])
        poses = iter([estimate.pred_instances for estimate in estimates])
        return [self.people(boxes, [next(poses) for _ in boxes]) for boxes in found]

    def people(self, boxes: np.ndarray, poses: list[Any]) -> People:
        """Put a picture's people together."""
        count = len(self.point_colours)
        points = np.array([pose.keypoints[0] for pose in poses]).reshape(-1, count, 2)
        scores = np.array([pose.keypoint_scores[0] for pose in poses]).reshape(-1, count)
        return People(boxes, points, scores)

    def records(self, result: People, image_id: Any) -> list[dict[str, Any]]:
        """Return COCO key point results; a person's score is the box's times the key points'."""
        records = []
        for box, points, scores in zip(result.boxes, result.keypoints, result.scores, strict=True):
            certain = scores[scores > SCORED_FROM]
            x1, y1, x2, y2, box_score = (float(value) for value in box)
            triples = np.column_stack([points, scores]).astype(float)
            records.append(
                {
                    'image_id': image_id,
                    'category_id': self.categories[0]['id'],
                    'keypoints': triples.round(3).ravel().tolist(),
                    'score': round(box_score * float(certain.mean()) if len(certain) else 0.0, 5),
                    'bbox': [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                }
            )
        return records

    def draw(self, shot: Shot, result: People) -> np.ndarray:
        """Draw skeletons and boxes."""
        return draw_poses(
            shot.image, result.boxes[:, :4], result.keypoints, result.scores >= self.score_thr,
            self.links, self.link_colours, self.point_colours,
        )  # fmt: skip
