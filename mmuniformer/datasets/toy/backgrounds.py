"""Textured backgrounds: gradients, stripes, tiles, blotches, rooms; all with grain."""

from __future__ import annotations

import cv2
import numpy as np

from mmuniformer.datasets.toy.drawing import blend, hsv, smoothstep


def value_noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 3) -> np.ndarray:
    """Smooth random field of (size, size) in [0, 1]; ``cells`` is the coarsest grid's side."""
    field = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        grid = rng.random((cells * 2**octave + 1,) * 2, np.float32)
        field += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) / 2**octave
    field -= field.min()
    return field / max(float(field.max()), 1e-6)


def _palette(rng) -> tuple[np.ndarray, np.ndarray]:
    """Two quiet colors that differ enough for the texture to show."""
    hue, value = rng.uniform(0, 360), rng.uniform(0.35, 0.92)
    other = value + rng.choice([-1, 1]) * rng.uniform(0.08, 0.25)
    return (
        hsv(hue, rng.uniform(0.06, 0.36), value),
        hsv(hue + rng.uniform(-50, 50), rng.uniform(0.06, 0.36), float(np.clip(other, 0.22, 0.97))),
    )


def _directed(rng, x, y) -> np.ndarray:
    angle = rng.uniform(0, np.pi)
    return x * np.cos(angle) + y * np.sin(angle)


def _gradient(rng, x, y):
    ramp = _directed(rng, x - 0.5, y - 0.5) + 0.5
    cloud = value_noise(rng, len(x), 4)
    return np.clip(0.75 * ramp + 0.35 * (cloud - 0.5), 0, 1)


def _stripes(rng, x, y):
    wobble = 0.04 * value_noise(rng, len(x), 3)
    edge = rng.uniform(0.15, 1.0)
    wave = np.sin(2 * np.pi * rng.uniform(4, 11) * (_directed(rng, x, y) + wobble))
    return smoothstep(-edge, edge, wave)


def _tiles(rng, x, y):
    number, angle = rng.uniform(4, 9), rng.uniform(-0.5, 0.5)
    u = (x * np.cos(angle) + y * np.sin(angle)) * number
    v = (y * np.cos(angle) - x * np.sin(angle)) * number
    if rng.random() < 0.5:
        return smoothstep(-0.25, 0.25, np.sin(np.pi * u) * np.sin(np.pi * v))
    joint = np.minimum(np.abs(u % 1 - 0.5), np.abs(v % 1 - 0.5))
    return smoothstep(0.02, 0.09, joint)


def _blotches(rng, x, y):
    field = value_noise(rng, len(x), int(rng.integers(3, 8)))
    edge = rng.uniform(0.05, 0.4)
    return smoothstep(0.5 - edge, 0.5 + edge, field)


TEXTURES = (_gradient, _stripes, _tiles, _blotches)


def _texture(rng, x, y) -> np.ndarray:
    first, second = _palette(rng)
    weight = TEXTURES[rng.integers(len(TEXTURES))](rng, x, y).astype(np.float32)
    return blend(np.broadcast_to(first, (*x.shape, 3)), second, weight)


def _room(rng, x, y) -> np.ndarray:
    """A wall above a floor whose texture runs away from the viewer."""
    horizon = rng.uniform(0.35, 0.6)
    near = 0.35 / np.maximum(y - horizon + 0.35, 0.05)
    floor = _texture(rng, (x - 0.5) * near + 0.5, 1.6 * near)
    wall = _texture(rng, x, y)
    wall = wall * (0.85 + 0.25 * (y / horizon))[..., None]
    line = smoothstep(-0.01, 0.01, y - horizon)
    room = blend(wall, floor * (1.0 - 0.25 * near)[..., None], line)
    skirting = np.exp(-(((y - horizon) / 0.015) ** 2)).astype(np.float32)
    return room * (1 - 0.25 * skirting)[..., None]


def sample_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a background of (size, size, 3), RGB in [0, 1]."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size
    image = _room(rng, x, y) if rng.random() < 0.6 else _texture(rng, x, y)
    cloud = value_noise(rng, size, 3, 2) - 0.5
    image = image * (1 + 0.22 * cloud)[..., None]
    grain = rng.normal(0, rng.uniform(0.003, 0.02), (size, size, 1))
    return np.clip(image + grain, 0, 1).astype(np.float32)
