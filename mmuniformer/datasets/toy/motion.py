"""Drawn clips whose class is how an object moves; what a single frame shows tells nothing.

The state in the middle of a clip is drawn alike for all classes, and each class runs backward as
another one: a frame alone is as likely under both.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np

from mmuniformer.datasets.toy.backgrounds import sample_background
from mmuniformer.datasets.toy.drawing import Canvas
from mmuniformer.datasets.toy.objects import Ball, Box, sample_ball, sample_box

FRAMES, SIDE = 16, 64
DIRECTIONS = {'left': (-1, 0), 'right': (1, 0), 'up': (0, -1), 'down': (0, 1)}
MOTIONS = (*DIRECTIONS, 'grow', 'shrink')
"""The classes, and folders of them."""
SUFFIX = '.avi'


def placed(item: Ball | Box, at: np.ndarray, factor: float) -> Ball | Box:
    """Return an object at a place and of another size."""
    sizes = 'half_axes' if isinstance(item, Ball) else 'half_sides'
    return dataclasses.replace(item, at=at, **{sizes: getattr(item, sizes) * factor})


def sample_item(random: np.random.Generator) -> Ball | Box:
    """Draw an object, not placed yet."""
    return (sample_ball if random.random() < 0.5 else sample_box)(random, random.uniform(16, 26))


def toy_clip(motion: str, random: np.random.Generator) -> np.ndarray:
    """Draw a clip, RGB ``(FRAMES, SIDE, SIDE, 3)`` uint8."""
    background = sample_background(random, SIDE)
    light = np.array([random.uniform(-0.6, 0.6), -0.5, 0.8])
    light /= np.linalg.norm(light)
    item, middle = sample_item(random), random.uniform(0.35, 0.65, 2) * SIDE
    still, corner = sample_item(random), random.choice((0.1, 0.9), 2) * SIDE
    span, ratio = random.uniform(20, 36), random.uniform(1.8, 2.6)
    images = []
    for part in np.linspace(-0.5, 0.5, FRAMES):
        at, factor = middle, 1.0
        if motion in DIRECTIONS:
            at = middle + part * span * np.array(DIRECTIONS[motion])
        else:
            factor = ratio ** (part if motion == 'grow' else -part)
        canvas = Canvas(background, light)
        placed(still, corner, 1.0).paint(canvas, 1)
        placed(item, at, factor).paint(canvas, 2)
        images.append(np.clip(canvas.rgb * 255 + 0.5, 0, 255).astype(np.uint8))
    return np.stack(images)


def encode_clip(path: str, clip: np.ndarray) -> bool:
    """Write Motion JPEG with OpenCV's own encoder; return whether it could be written."""
    size = clip.shape[2], clip.shape[1]
    code = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(path, cv2.CAP_OPENCV_MJPEG, code, 8, size)
    for image in clip:
        writer.write(image[..., ::-1])
    done = writer.isOpened()
    writer.release()
    return done
