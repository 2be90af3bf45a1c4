"""Compose a scene: a few people and objects, some partly hidden, and what can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmuniformer.datasets.toy.backgrounds import sample_background
from mmuniformer.datasets.toy.drawing import Canvas
from mmuniformer.datasets.toy.figures import Figure, sample_figure
from mmuniformer.datasets.toy.objects import Ball, Box, sample_ball, sample_box

# All lengths are for scenes of 128 x 128 pixels and grow with the scene.
BASE_SIZE = 128
PERSON_HEIGHT = (52, 110)
BOX_SIDE = (24, 46)
BALL_SIDE = (24, 44)
MIN_AREA = 100
# Less than this part of an object's pixels left in view, and it is taken out of the scene.
MIN_VISIBLE = 0.4
PLACEMENTS = 24


@dataclass
class Instance:
    """What can be seen of one object.

    ``mask`` is (size, size) bool; ``keypoints`` (17, 3) for people, else None; ``hidden`` the part
    of its pixels in the frame that something else covers.
    """

    label: str
    mask: np.ndarray
    keypoints: np.ndarray | None
    hidden: float


@dataclass
class Scene:
    """An RGB image, (size, size, 3) uint8, and its instances from far to near."""

    image: np.ndarray
    instances: list[Instance]


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Common area of two boxes, as a part of the smaller one."""
    common = np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0).prod()
    return float(common / min((a[1] - a[0]).prod(), (b[1] - b[0]).prod()))


def _spot(rng, item, size: int) -> np.ndarray:
    """A place for the middle of an object's extent: on the ground, in the air or cut by an edge."""
    width, height = item.extent()[1] - item.extent()[0]
    x = rng.uniform(0.48 * width, max(size - 0.48 * width, 0.5 * width))
    flies = not isinstance(item, Figure) and rng.random() < 0.35
    highest = height if flies else max(height, 0.62 * size)
    foot = rng.uniform(highest, max(size, highest))
    if rng.random() < 0.18:
        cut = rng.uniform(0.08, 0.32)
        edge = rng.integers(3)
        if edge == 0:
            x = width * (0.5 - cut)
        elif edge == 1:
            x = size - width * (0.5 - cut)
        else:
            foot = size + cut * height
    return np.array([x, foot - height / 2])


def _put(rng, item, placed: list, size: int) -> None:
    """Place an object: often a little over or under another one, never buried."""
    low = 0.25 if rng.random() < 0.7 else 0.0
    best = None
    for _ in range(PLACEMENTS):
        box = item.extent()
        item.at = item.at + _spot(rng, item, size) - box.mean(0)
        overlap = max((_overlap(item.extent(), other.extent()) for other in placed), default=low)
        if low <= overlap <= 0.6:
            return
        if best is None or overlap < best[0]:
            best = overlap, item.at
    item.at = best[1]


def _sample_items(rng, size: int) -> list:
    scale = size / BASE_SIZE
    people = int(rng.integers(1, 3))
    items: list[Figure | Box | Ball] = []
    for _ in range(people):
        tallest = PERSON_HEIGHT[1] if people == 1 else 0.9 * PERSON_HEIGHT[1]
        items.append(sample_figure(rng, rng.uniform(PERSON_HEIGHT[0], tallest) * scale))
    boxes_turn = rng.random() < 0.5
    for _ in range(int(rng.choice([1, 2, 3], p=[0.15, 0.5, 0.35]))):
        sample, side = (sample_box, BOX_SIDE) if boxes_turn else (sample_ball, BALL_SIDE)
        items.append(sample(rng, rng.uniform(*side) * scale))
        boxes_turn = not boxes_turn
    placed: list[Figure | Box | Ball] = []
    for item in items:
        _put(rng, item, placed, size)
        placed.append(item)
    # What stands lower in the image is nearer, give or take.
    order = [item.extent()[1, 1] + rng.normal(0, 0.08) * size for item in items]
    return [items[i] for i in np.argsort(order)]


def _compose(background, light, items) -> tuple[Canvas, list[Instance]]:
    canvas = Canvas(background, light)
    whole = [item.paint(canvas, number) for number, item in enumerate(items, 1)]
    instances = []
    for number, item in enumerate(items, 1):
        mask = canvas.owner == number
        keypoints = item.keypoints(canvas, number) if isinstance(item, Figure) else None
        in_frame = max(int(whole[number - 1].sum()), 1)
        instances.append(Instance(item.label, mask, keypoints, 1 - mask.sum() / in_frame))
    return canvas, instances


def sample_scene(rng: np.random.Generator, size: int = BASE_SIZE) -> Scene:
    """Draw a scene of ``size`` x ``size`` pixels.

    Whatever would be nearly hidden is left out of the image, so that all that can be seen is
    annotated.
    """
    background = sample_background(rng, size)
    light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.75, -0.35), 0.7])
    items = _sample_items(rng, size)
    least = MIN_AREA * (size / BASE_SIZE) ** 2
    while True:
        canvas, instances = _compose(background, light / np.linalg.norm(light), items)
        kept = [
            item
            for item, seen in zip(items, instances, strict=True)
            if seen.mask.sum() >= least and seen.hidden <= 1 - MIN_VISIBLE
        ]
        if len(kept) == len(items):
            break
        items = kept
    image = (canvas.rgb - 0.5) * rng.uniform(0.88, 1.08) + 0.5 + rng.normal(0, 0.03)
    image += rng.normal(0, rng.uniform(0.004, 0.014), image.shape)
    return Scene(np.clip(np.round(image * 255), 0, 255).astype(np.uint8), instances)
