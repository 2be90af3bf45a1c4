"""The objects that are not people: boxes and balls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmuniformer.datasets.toy.drawing import (
    Canvas,
    blend,
    ellipse,
    hsv,
    local_axes,
    rectangle,
    smoothstep,
)


@dataclass
class Box:
    """A turned rectangle with a band across it; sizes in pixels, angle in radians."""

    half_sides: np.ndarray
    angle: float
    color: np.ndarray
    band: np.ndarray
    band_width: float
    crossed: bool
    at: np.ndarray
    label = 'box'

    def extent(self) -> np.ndarray:
        """The box around it, as [[x0, y0], [x1, y1]]."""
        c, s = abs(np.cos(self.angle)), abs(np.sin(self.angle))
        reach = np.array([[c, s], [s, c]]) @ self.half_sides
        return np.array([self.at - reach, self.at + reach])

    def paint(self, canvas: Canvas, owner: int) -> np.ndarray:
        """Paint it and return the mask of the pixels it takes over."""
        mine = np.zeros(canvas.owner.shape, bool)
        win = canvas.window(self.extent(), 0)
        if win is None:
            return mine
        low = self.extent()[1, 1]
        canvas.shadow((self.at[0], low), (1.1 * self.half_sides[0], 0.22 * self.half_sides[1]), 0.4)
        side = float(min(self.half_sides))
        u, v = local_axes(win, self.at, self.angle)
        distance = rectangle(win, self.at, self.half_sides, self.angle, 0.12 * side)
        bands = 1 - smoothstep(self.band_width - 0.06, self.band_width + 0.06, np.abs(u) / side)
        if self.crossed:
            across = np.abs(v) / side
            bands = np.maximum(
                bands, 1 - smoothstep(self.band_width - 0.06, self.band_width + 0.06, across)
            )
        color = blend(np.broadcast_to(self.color, (*u.shape, 3)), self.band, bands)
        # Darker towards the lower edge, as a side that turns away from the light.
        fall = 1 - 0.28 * smoothstep(-1, 1, v / self.half_sides[1])
        taken = canvas.paint(
            win, distance, color * fall[..., None], bevel=0.28 * side, owner=owner, gloss=0.1
        )
        mine[win.rows, win.cols] = taken
        return mine


@dataclass
class Ball:
    """A shaded disc or ellipse, plain or in two colors; sizes in pixels, angle in radians."""

    half_axes: np.ndarray
    angle: float
    color: np.ndarray
    second: np.ndarray
    segments: int
    at: np.ndarray
    label = 'ball'

    def extent(self) -> np.ndarray:
        """The box around it, as [[x0, y0], [x1, y1]]."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        reach = np.sqrt(np.array([[c * c, s * s], [s * s, c * c]]) @ self.half_axes**2)
        return np.array([self.at - reach, self.at + reach])

    def paint(self, canvas: Canvas, owner: int) -> np.ndarray:
        """Paint it and return the mask of the pixels it takes over."""
        mine = np.zeros(canvas.owner.shape, bool)
        win = canvas.window(self.extent(), 0)
        if win is None:
            return mine
        radius = float(min(self.half_axes))
        canvas.shadow((self.at[0], self.extent()[1, 1]), (radius, 0.25 * radius), 0.45)
        distance = ellipse(win, self.at, self.half_axes, self.angle)
        u, v = local_axes(win, self.at, self.angle)
        u, v = u / self.half_axes[0], v / self.half_axes[1]
        color = np.broadcast_to(self.color, (*u.shape, 3))
        if self.segments:
            # Panels around a pole that leans towards the viewer.
            turn = np.arctan2(v + 0.45, u - 0.25) * self.segments
            edge = 0.25 + 0.1 * self.segments / np.maximum(radius / 10, 1)
            color = blend(color, self.second, smoothstep(-edge, edge, np.sin(turn)))
        taken = canvas.paint(win, distance, color, bevel=radius, owner=owner, gloss=0.8)
        mine[win.rows, win.cols] = taken
        return mine


def sample_box(rng: np.random.Generator, side: float) -> Box:
    """Draw a box whose sides have that geometric mean in pixels; it is placed later."""
    stretch = np.sqrt(rng.uniform(0.65, 1.5))
    upright = rng.random() < 0.4
    hue, value = rng.uniform(0, 360), rng.uniform(0.45, 0.85)
    paler = rng.uniform(1.2, 1.5)
    return Box(
        half_sides=np.array([side * stretch, side / stretch]) / 2,
        angle=rng.normal(0, 0.08) if upright else rng.uniform(-np.pi / 4, np.pi / 4),
        color=hsv(hue, rng.uniform(0.45, 0.85), value),
        band=hsv(hue + rng.uniform(-30, 30), rng.uniform(0.05, 0.35), min(paler * value, 1)),
        band_width=rng.uniform(0.14, 0.3),
        crossed=bool(rng.random() < 0.5),
        at=np.zeros(2),
    )


def sample_ball(rng: np.random.Generator, side: float) -> Ball:
    """Draw a ball of that mean diameter in pixels; it is placed later."""
    stretch = np.sqrt(rng.uniform(0.78, 1.0))
    hue = rng.uniform(0, 360)
    return Ball(
        half_axes=np.array([side / stretch, side * stretch]) / 2,
        angle=rng.uniform(-np.pi / 2, np.pi / 2),
        color=hsv(hue, rng.uniform(0.5, 0.95), rng.uniform(0.65, 1.0)),
        second=hsv(hue + rng.uniform(60, 300), rng.uniform(0.0, 0.6), rng.uniform(0.8, 1.0)),
        segments=int(rng.choice([0, 2, 3])),
        at=np.zeros(2),
    )
