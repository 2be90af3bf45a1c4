"""Lit, antialiased shapes on a canvas that remembers which instance owns each pixel.

A shape is a signed distance in pixels, negative inside. Coverage comes from the distance, relief
from its gradient, so that every shape looks like a cushion lit by the scene's one light.
Coordinates count pixel centres: the first pixel of the image is at (0, 0).
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """RGB of a color given in HSV; hue in degrees, the rest and the result in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value), np.float32)


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, smooth in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(base: np.ndarray, over: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Mix two colors, (3,) or (H, W, 3), with a weight of (H, W)."""
    return base + (over - base) * weight[..., None]


@dataclass
class Window:
    """Part of a canvas, with the x and y of its pixel centres, (h, w) each."""

    rows: slice
    cols: slice
    x: np.ndarray
    y: np.ndarray


def capsule(win: Window, p, q, radius_p: float, radius_q: float) -> np.ndarray:
    """Distance to a limb from ``p`` to ``q`` whose radius changes along the way."""
    axis = np.subtract(q, p)
    along = (win.x - p[0]) * axis[0] + (win.y - p[1]) * axis[1]
    t = np.clip(along / max(float(axis @ axis), 1e-6), 0, 1)
    away = np.hypot(win.x - p[0] - t * axis[0], win.y - p[1] - t * axis[1])
    return away - (radius_p + t * (radius_q - radius_p))


def local_axes(win: Window, centre, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in a frame at ``centre`` turned by ``angle`` radians."""
    dx, dy = win.x - centre[0], win.y - centre[1]
    return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)


def ellipse(win: Window, centre, half_axes, angle: float = 0.0) -> np.ndarray:
    """Distance to an ellipse, measured along its short axis."""
    u, v = local_axes(win, centre, angle)
    return (np.hypot(u / half_axes[0], v / half_axes[1]) - 1) * min(half_axes)


def rectangle(win: Window, centre, half_sides, angle: float, corner: float) -> np.ndarray:
    """Distance to a turned rectangle with rounded corners."""
    u, v = local_axes(win, centre, angle)
    du, dv = np.abs(u) - half_sides[0] + corner, np.abs(v) - half_sides[1] + corner
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return outside + np.minimum(np.maximum(du, dv), 0) - corner


def polygon(win: Window, points, corner: float) -> np.ndarray:
    """Distance to a polygon, (N, 2) points, grown by ``corner`` all around."""
    points = np.asarray(points, np.float32)
    nearest = np.full(win.x.shape, np.inf, np.float32)
    inside = np.zeros(win.x.shape, bool)
    for p, q in zip(points, np.roll(points, -1, axis=0), strict=True):
        nearest = np.minimum(nearest, capsule(win, p, q, 0, 0))
        crosses = (p[1] > win.y) != (q[1] > win.y)
        rise = q[1] - p[1] if q[1] != p[1] else 1.0
        inside ^= crosses & (win.x < p[0] + (win.y - p[1]) * (q[0] - p[0]) / rise)
    return np.where(inside, -nearest, nearest) - corner


class Canvas:
    """An image being painted from far to near.

    ``owner`` holds the number of the instance in front at each pixel (0: background), ``part`` the
    number of that instance's part. ``light`` points from the scene to the light; z is towards the
    viewer.
    """

    def __init__(self, background: np.ndarray, light: np.ndarray):
        self.rgb = background.astype(np.float32, copy=True)
        self.owner = np.zeros(background.shape[:2], np.int16)
        self.part = np.zeros(background.shape[:2], np.int16)
        self.light = np.asarray(light, np.float32)

    def window(self, points, reach: float) -> Window | None:
        """The pixels within ``reach`` of the box around ``points``; None if all are outside."""
        points = np.atleast_2d(points)
        height, width = self.owner.shape
        spans = []
        for low, high, limit in zip(
            points.min(0) - reach - 1, points.max(0) + reach + 1, (width, height), strict=True
        ):
            start, stop = max(int(np.floor(low)), 0), min(int(np.ceil(high)) + 1, limit)
            if start >= stop:
                return None
            if stop - start < 2:  # a gradient needs two pixels
                start, stop = (start - 1, stop) if start else (start, stop + 1)
            spans.append(slice(start, stop))
        cols, rows = spans
        y, x = np.mgrid[rows, cols].astype(np.float32)
        return Window(rows, cols, x, y)

    def paint(
        self, win: Window, distance, color, *, bevel: float, owner: int, part: int = 0, gloss=0.0
    ) -> np.ndarray:
        """Paint a shape and return the mask of the window's pixels it takes over.

        ``color`` is (3,) or (h, w, 3); ``bevel`` is the width in pixels over which the relief
        falls off to the edge.
        """
        slope = np.clip(1 + distance / bevel, 0, 1)
        grad_y, grad_x = np.gradient(distance)
        facing = np.sqrt(1 - slope**2)
        lx, ly, lz = self.light
        lit = np.maximum(slope * (grad_x * lx + grad_y * ly) + facing * lz, 0)
        shine = gloss * np.clip(2 * lit * facing - lz, 0, 1) ** 12
        tone = np.clip(color * (0.42 + 0.72 * lit)[..., None] + shine[..., None], 0, 1)
        cover = np.clip(0.5 - distance, 0, 1)
        here = (win.rows, win.cols)
        self.rgb[here] = blend(self.rgb[here], tone, cover)
        taken = cover >= 0.5
        self.owner[here][taken] = owner
        self.part[here][taken] = part
        return taken

    def shadow(self, centre, half_axes, strength: float) -> None:
        """Darken a soft ellipse, as where an object touches the ground."""
        win = self.window(centre, 2 * max(half_axes))
        if win is None:
            return
        level = np.hypot((win.x - centre[0]) / half_axes[0], (win.y - centre[1]) / half_axes[1])
        self.rgb[win.rows, win.cols] *= (1 - strength * np.exp(-(level**2)))[..., None]
