"""Images in captioned rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

GAP = 6
CAPTION = 26


def contact_sheet(rows: Mapping[str, Sequence[Sequence[np.ndarray]]], columns: int) -> np.ndarray:
    """Lay groups of images out below their captions.

    Args:
        rows: For each caption the groups, all of one size: BGR images ``(H, W, 3)`` side by side.
        columns: Groups per line.
    """
    return np.vstack([block(caption, groups, columns) for caption, groups in rows.items()])


def block(caption: str, groups: Sequence[Sequence[np.ndarray]], columns: int) -> np.ndarray:
    """Lay out the groups of one caption."""
    tiles = [np.hstack([bordered(image, right=GAP) for image in group]) for group in groups]
    empty = np.full_like(tiles[0], 255)
    tiles += [empty] * (-len(tiles) % columns)
    lines = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    body = np.vstack([bordered(line, bottom=GAP) for line in lines])
    head = np.full((CAPTION, body.shape[1], 3), 255, np.uint8)
    cv2.putText(head, caption, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.vstack([head, body])


def bordered(image: np.ndarray, bottom: int = 0, right: int = 0) -> np.ndarray:
    """Add a white border."""
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=[255] * 3)
