"""A person: a posed skeleton with volume, clothes and a head, painted part by part.

The left limbs are warm (orange) and the right limbs cool (blue) on every figure, so that the sides
can be told apart from the image alone, also from behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmuniformer.datasets.toy.drawing import (
    Canvas,
    blend,
    capsule,
    ellipse,
    hsv,
    local_axes,
    polygon,
    smoothstep,
)
from mmuniformer.datasets.toy.skeleton import (
    FACE,
    HEAD_RADIUS,
    KEYPOINTS,
    SIDES,
    Skeleton,
    sample_skeleton,
)

PARTS = ('torso', 'head', 'neck') + tuple(
    f'{side}_{part}' for side in SIDES for part in ('upper_arm', 'forearm', 'thigh', 'shin', 'ear')
)
# Joint to joint with both radii in standing heights, and what is added to the middle's z to decide
# what goes in front: sleeves lie on the shirt and the shirt hangs over the trousers.
BONES = {
    'upper_arm': ('shoulder', 'elbow', 0.054, 0.047, 0.05),
    'forearm': ('elbow', 'wrist', 0.047, 0.042, 0.07),
    'thigh': ('hip', 'knee', 0.067, 0.056, -0.05),
    'shin': ('knee', 'ankle', 0.056, 0.047, -0.04),
}
TORSO_CORNER = 0.05
# A joint counts as visible where one of these parts is in front.
SHOWN_BY = {
    'shoulder': ('upper_arm', 'torso'),
    'elbow': ('upper_arm', 'forearm'),
    'wrist': ('forearm',),
    'hip': ('thigh', 'torso'),
    'knee': ('thigh', 'shin'),
    'ankle': ('shin',),
}
SKIN = ((26, 0.30, 0.97), (24, 0.38, 0.90), (22, 0.48, 0.76), (20, 0.56, 0.56), (18, 0.58, 0.42))
HAIR = ((28, 0.65, 0.20), (20, 0.55, 0.32), (44, 0.50, 0.78), (14, 0.70, 0.45), (0, 0.0, 0.12))


@dataclass
class Clothes:
    """Colors of one figure, RGB in [0, 1]."""

    skin: np.ndarray
    hair: np.ndarray
    shirt: np.ndarray
    trim: np.ndarray
    sides: dict[str, np.ndarray]
    striped: bool


def sample_clothes(rng: np.random.Generator) -> Clothes:
    """Draw a figure's colors; only the hues of the limbs are bound."""
    hue = rng.uniform(0, 360)
    shirt = hsv(hue, rng.uniform(0.15, 0.7), rng.uniform(0.45, 0.95))
    trim = hsv(hue + rng.uniform(-40, 40), rng.uniform(0.1, 0.6), rng.uniform(0.3, 0.95))
    sides = {
        'left': hsv(rng.uniform(12, 42), rng.uniform(0.78, 0.95), rng.uniform(0.85, 1.0)),
        'right': hsv(rng.uniform(198, 232), rng.uniform(0.70, 0.9), rng.uniform(0.70, 0.95)),
    }
    return Clothes(
        skin=hsv(*SKIN[rng.integers(len(SKIN))]),
        hair=hsv(*HAIR[rng.integers(len(HAIR))]),
        shirt=shirt,
        trim=trim,
        sides=sides,
        striped=bool(rng.random() < 0.4),
    )


@dataclass
class Figure:
    """A person with its hips at ``at`` (x, y in pixels), ``height`` pixels tall when upright."""

    skeleton: Skeleton
    clothes: Clothes
    height: float
    at: np.ndarray
    label = 'person'

    def place(self, name: str) -> np.ndarray:
        """Where a joint is in the image."""
        return self.at + self.height * self.skeleton.joints[name][:2]

    def extent(self) -> np.ndarray:
        """The box around it, as [[x0, y0], [x1, y1]], with its limbs' thickness."""
        points = np.array([self.place(name) for name in self.skeleton.joints if name != 'head'])
        head = self.place('head')
        reach, radius = 0.05 * self.height, HEAD_RADIUS * self.height
        return np.array(
            [
                np.minimum(points.min(0) - reach, head - radius),
                np.maximum(points.max(0) + reach, head + radius),
            ]
        )

    def paint(self, canvas: Canvas, owner: int) -> np.ndarray:
        """Paint it and return the mask of the pixels it takes over."""
        z = {name: point[2] for name, point in self.skeleton.joints.items()}
        feet = [self.place(f'{side}_toe') for side in SIDES]
        ground = (np.mean([f[0] for f in feet]), max(f[1] for f in feet) + 0.02 * self.height)
        canvas.shadow(ground, (0.20 * self.height, 0.045 * self.height), 0.45)

        steps = [
            (z['neck'] / 2, self._torso, ()),
            (z['neck'] - 0.01, self._neck, ()),
            (z['head'] + 0.06, self._head, ()),
        ]
        for side in SIDES:
            steps.append((z[f'{side}_ear'] + 0.04, self._ear, (side,)))
            for bone, (start, end, _, _, bias) in BONES.items():
                middle = (z[f'{side}_{start}'] + z[f'{side}_{end}']) / 2
                steps.append((middle + bias, self._bone, (side, bone)))
        mine = np.zeros(canvas.owner.shape, bool)
        for _, step, args in sorted(steps, key=lambda s: s[0]):
            step(canvas, owner, mine, *args)
        return mine

    def _shape(self, canvas, owner, mine, win, distance, color, part, bevel, gloss=0.0):
        taken = canvas.paint(
            win, distance, color, bevel=bevel, owner=owner, part=PARTS.index(part), gloss=gloss
        )
        mine[win.rows, win.cols] |= taken

    def _bone(self, canvas, owner, mine, side, bone):
        start, end, radius_p, radius_q, _ = BONES[bone]
        p, q = self.place(f'{side}_{start}'), self.place(f'{side}_{end}')
        radius_p, radius_q = radius_p * self.height, radius_q * self.height
        color = self.clothes.sides[side]
        if bone == 'shin':
            self._shoe(canvas, owner, mine, side, q, radius_q)
        win = canvas.window([p, q], max(radius_p, radius_q))
        if win is not None:
            tone = color * (0.86 if bone in ('upper_arm', 'thigh') else 1.0)
            distance = capsule(win, p, q, radius_p, radius_q)
            self._shape(canvas, owner, mine, win, distance, tone, f'{side}_{bone}', radius_p)

    def _shoe(self, canvas, owner, mine, side, ankle, radius):
        toe = self.place(f'{side}_toe')
        win = canvas.window([ankle, toe], radius)
        if win is not None:
            distance = capsule(win, ankle, toe, radius, 0.85 * radius)
            color = self.clothes.sides[side] * 0.5
            self._shape(canvas, owner, mine, win, distance, color, f'{side}_shin', radius)

    def _torso(self, canvas, owner, mine):
        names = ('left_shoulder', 'right_shoulder', 'right_hip', 'left_hip')
        corners = np.array([self.place(name) for name in names])
        # The outline sits inside the joints: its rounded rim brings it back out.
        corner = TORSO_CORNER * self.height
        middle = corners.mean(0)
        win = canvas.window(corners, corner)
        if win is None:
            return
        distance = polygon(win, middle + 0.82 * (corners - middle), corner)
        color = np.broadcast_to(self.clothes.shirt, (*distance.shape, 3))
        spine = self.place('pelvis') - self.place('neck')
        _, along = local_axes(win, self.place('neck'), np.arctan2(spine[1], spine[0]) - np.pi / 2)
        along = along / self.height
        if self.clothes.striped:
            color = blend(color, self.clothes.trim, smoothstep(-0.3, 0.3, np.sin(along * 75)))
        else:
            color = blend(color, self.clothes.trim, smoothstep(0.24, 0.26, along))
        self._shape(canvas, owner, mine, win, distance, color, 'torso', 2.0 * corner)

    def _neck(self, canvas, owner, mine):
        p, q, radius = self.place('neck'), self.place('head'), 0.045 * self.height
        win = canvas.window([p, q], radius)
        if win is not None:
            distance = capsule(win, p, q, radius, radius)
            self._shape(
                canvas, owner, mine, win, distance, self.clothes.skin * 0.85, 'neck', radius
            )

    def _ear(self, canvas, owner, mine, side):
        centre, radius = self.place(f'{side}_ear'), 0.24 * HEAD_RADIUS * self.height
        win = canvas.window(centre, radius)
        if win is not None:
            distance = ellipse(win, centre, (radius, radius))
            color = self.clothes.skin * 0.9
            self._shape(canvas, owner, mine, win, distance, color, f'{side}_ear', radius)

    def _head(self, canvas, owner, mine):
        centre, radius = self.place('head'), HEAD_RADIUS * self.height
        win = canvas.window(centre, radius)
        if win is None:
            return
        distance = ellipse(win, centre, (radius, radius))
        flat = np.stack([win.x - centre[0], win.y - centre[1]], -1) / radius
        depth = np.sqrt(np.maximum(1 - (flat**2).sum(-1), 0))
        sphere = np.concatenate([flat, depth[..., None]], -1) @ self.skeleton.head_turn
        color = np.broadcast_to(self.clothes.skin, sphere.shape)
        soft = 1.2 / radius  # about one pixel, in head radii
        for name, size, tone in (
            ('left_eye', 0.26, np.ones(3)),
            ('right_eye', 0.26, np.ones(3)),
            ('left_eye', 0.15, np.full(3, 0.05)),
            ('right_eye', 0.15, np.full(3, 0.05)),
            ('nose', 0.15, self.clothes.skin * 0.6),
        ):
            away = np.linalg.norm(sphere - np.array(FACE[name]), axis=-1)
            color = blend(color, tone, 1 - smoothstep(size - soft / 2, size + soft / 2, away))
        crown = -sphere[..., 1] - 0.8 * sphere[..., 2]
        color = blend(color, self.clothes.hair, smoothstep(-0.05 - soft, -0.05 + soft, crown))
        self._shape(canvas, owner, mine, win, distance, color, 'head', 1.4 * radius)

    def keypoints(self, canvas: Canvas, owner: int) -> np.ndarray:
        """The COCO keypoints, (17, 3): x, y in pixels and visibility; painted scenes only.

        Visibility is 2 where the joint can be seen, 1 where something is in front of it, 0 (with
        x = y = 0) outside the image.
        """
        height, width = canvas.owner.shape
        rows = np.zeros((len(KEYPOINTS), 3))
        for row, name in zip(rows, KEYPOINTS, strict=True):
            x, y = np.round(self.place(name), 2)
            col, line = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
            if not (0 <= col < width and 0 <= line < height):
                continue
            seen = canvas.owner[line, col] == owner and self._shows(name, canvas.part[line, col])
            row[:] = x, y, 2 if seen else 1
        return rows

    def _shows(self, name: str, part: int) -> bool:
        """Whether this part in front means that the joint is seen."""
        side, _, joint = name.rpartition('_')
        if joint in SHOWN_BY:
            return PARTS[part] in {p if p == 'torso' else f'{side}_{p}' for p in SHOWN_BY[joint]}
        towards_us = self.skeleton.joints[name][2] > self.skeleton.joints['head'][2]
        if joint == 'ear':
            return PARTS[part] == f'{side}_ear' or (PARTS[part] == 'head' and towards_us)
        return PARTS[part] == 'head' and towards_us


def sample_figure(rng: np.random.Generator, height: float) -> Figure:
    """Draw a person of that height in pixels; it is placed later."""
    return Figure(sample_skeleton(rng), sample_clothes(rng), height, np.zeros(2))
