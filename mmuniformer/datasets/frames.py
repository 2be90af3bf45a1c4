"""Which frames of a video make a clip, by the authors' formulas; numbers start at 0.

Dense clips (Kinetics) are windows of ``frames * stride`` frames. Segments (Something-Something)
are equal parts of the whole video, each giving one frame.
"""

from __future__ import annotations

import numpy as np


def dense_clip(length: int, frames: int, stride: int, start: float) -> np.ndarray:
    """Return the frames of a window from ``start`` on; what lies past the end is the last frame."""
    window = frames * stride
    return np.linspace(start, start + window - 1, frames).clip(0, length - 1).astype(np.int64)


def dense_start(length: int, frames: int, stride: int, clip: int, clips: int) -> int:
    """Return where a clip starts in testing: spread over the video, a single one in its middle."""
    free = max(length - frames * stride, 0)
    return free // 2 if clips == 1 else clip * (free // (clips - 1))


def random_dense_start(length: int, frames: int, stride: int, random: np.random.Generator) -> float:
    """Draw where a clip starts in training: any real number that leaves it inside the video."""
    return random.uniform(0, max(length - frames * stride, 0))


def segment_edges(length: int, frames: int) -> np.ndarray:
    """Return where the segments of a video start and end, rounded: ``frames + 1`` numbers."""
    return np.round((length - 1) / frames * np.arange(frames + 1)).astype(np.int64)


def segment_clip(length: int, frames: int, clip: int, clips: int) -> np.ndarray:
    """Return the frames of a clip in testing: clips take evenly spread places of each segment."""
    offset = int((length - 1) / frames / (clips + 1) * (clip + 1))
    return (segment_edges(length, frames)[:-1] + offset).clip(0, length - 1)


def random_segment_clip(length: int, frames: int, random: np.random.Generator) -> np.ndarray:
    """Draw the frames of a clip in training: one of each segment, both its ends included."""
    edges = segment_edges(length, frames)
    return random.integers(edges[:-1], edges[1:] + 1).clip(0, length - 1)
