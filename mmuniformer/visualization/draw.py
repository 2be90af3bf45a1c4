"""Drawings of predictions and labels on images (BGR, uint8); line widths follow the image size."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
Color = tuple[int, int, int]

GOLDEN = 0.618034
"""Hues this part of a turn apart stay distinct, however many there are."""
GAP, CAPTION = 6, 26
"""Pixels between the images of a contact sheet, and the height of its captions."""


def colors(palette: object, count: int) -> list[Color]:
    """Return BGR colors from an RGB palette, or distinct ones if it has fewer than ``count``."""
    if isinstance(palette, (list, tuple, np.ndarray)) and len(palette) >= count:
        return [(int(b), int(g), int(r)) for r, g, b in palette[:count]]
    values = (colorsys.hsv_to_rgb(0.02 + GOLDEN * i, 0.75, 0.95) for i in range(count))
    return [(int(255 * b), int(255 * g), int(255 * r)) for r, g, b in values]


def thickness(image: np.ndarray) -> int:
    """Return a line width in pixels that suits an image."""
    return max(1, round(max(image.shape[:2]) / 400))


def pixels(points: np.ndarray) -> list[tuple[int, int]]:
    """Return points ``(N, 2)`` at whole pixels; a box is two of them."""
    return [(int(x), int(y)) for x, y in np.rint(np.reshape(points, (-1, 2)))]


def text_style(image: np.ndarray) -> tuple[float, int]:
    """Return scale and line width of text that suits an image."""
    scale = min(1.2, max(0.3, max(image.shape[:2]) / 1400))
    return scale, 2 if scale > 0.8 else 1


def put_label(
    image: np.ndarray, text: str, x: float, y: float, color: Color, centered: bool = False
) -> None:
    """Write text on a colored plate, moved into the image where it would leave it.

    The point is the plate's lower left corner, or its center.
    """
    height, width = image.shape[:2]
    scale, weight = text_style(image)
    (w, h), below = cv2.getTextSize(text, FONT, scale, weight)
    if centered:
        x, y = x - w / 2, y + (h + below) / 2
    x = int(min(max(0, x), max(0, width - w - 2)))
    y = int(min(max(h + below, y), height))
    cv2.rectangle(image, (x, y - h - below), (x + w + 2, y), color, -1)
    bright = color[0] * 0.114 + color[1] * 0.587 + color[2] * 0.299 > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(image, text, (x + 1, y - below // 2 - 1), FONT, scale, ink, weight, cv2.LINE_AA)


def draw_labels(image: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Write labels below each other into the upper left corner of a copy."""
    result = image.copy()
    sizes = [cv2.getTextSize(label, FONT, *text_style(image)) for label in labels]
    step = max((height + below for (_, height), below in sizes), default=0)  # differs by the text
    for line, (label, color) in enumerate(zip(labels, colors(None, len(labels)), strict=True), 1):
        put_label(result, label, 0, line * step, color)
    return result


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    color_of: Sequence[Color],
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Draw masks, boxes and labels on a copy; the first instance lies on top.

    ``boxes`` are ``(N, 4)``, x1, y1, x2, y2 in pixels, ``masks`` ``(N, H, W)`` boolean.
    """
    result = image.copy()
    line = thickness(image)
    order = range(len(boxes) - 1, -1, -1)
    for i in order if masks is not None else ():
        mask = masks[i].astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        if not width:
            continue
        inside = np.s_[y : y + height, x : x + width]
        shades = np.rint(np.arange(256)[:, None] * 0.55 + np.array(color_of[i]) * 0.45)
        tinted = cv2.LUT(result[inside], shades[None].astype(np.uint8))
        np.copyto(result[inside], tinted, where=masks[i][inside][..., None])
        outline, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outline, -1, color_of[i], line, cv2.LINE_AA)
    for i in order:
        cv2.rectangle(result, *pixels(boxes[i]), color_of[i], line)
    for i in order:
        put_label(result, labels[i], boxes[i][0], boxes[i][1], color_of[i])
    return result


def draw_map(
    image: np.ndarray, classes: np.ndarray, names: Sequence[str], color_of: Sequence[Color]
) -> np.ndarray:
    """Tint each pixel of a copy by its class, outline the regions, name each class once.

    ``classes`` are ``(H, W)``, class indices; ``names`` and ``color_of`` have one entry a class.
    """
    table = np.array(color_of, dtype=np.uint8)
    result = cv2.addWeighted(image, 0.5, table[classes], 0.5, 0)
    smallest = image.shape[0] * image.shape[1] / 400
    labels = []
    for index in np.unique(classes):
        # The border lets regions end where the image does.
        mask = np.pad((classes == index).astype(np.uint8), 1)
        outline, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outline, -1, color_of[index], thickness(image), offset=(-1, -1))
        if mask.sum() >= smallest:
            # The center of the largest circle inside: where a name sits well on any shape.
            depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
            labels.append((index, *np.unravel_index(depth.argmax(), depth.shape)))
    for index, y, x in labels:
        put_label(result, names[index], x - 1, y - 1, color_of[index], centered=True)
    return result


def draw_poses(
    image: np.ndarray,
    boxes: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    links: Sequence[tuple[int, int]],
    link_colors: Sequence[Color],
    point_colors: Sequence[Color],
) -> np.ndarray:
    """Draw skeletons and their boxes on a copy.

    ``boxes`` are ``(N, 4)``, x1, y1, x2, y2 in pixels, ``keypoints`` ``(N, K, 2)``, x, y; those
    ``visible``, ``(N, K)``, are drawn. ``links`` are the pairs of keypoints to join.
    """
    result = image.copy()
    line = thickness(image)
    for box, points, shown in zip(boxes, keypoints, visible, strict=True):
        cv2.rectangle(result, *pixels(box), (255, 255, 255), line, cv2.LINE_AA)
        places = pixels(points)
        for (start, end), color in zip(links, link_colors, strict=True):
            if shown[start] and shown[end]:
                cv2.line(result, places[start], places[end], color, 2 * line, cv2.LINE_AA)
        for place, show, color in zip(places, shown, point_colors, strict=True):
            if show:
                cv2.circle(result, place, 2 * line, color, -1, cv2.LINE_AA)
                cv2.circle(result, place, 2 * line, (0, 0, 0), 1, cv2.LINE_AA)
    return result


def overlay(
    image: np.ndarray, colors: np.ndarray, opacity: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Lay a map, ``(h, w, 3)`` and ``(h, w)`` in [0, 1], over an image in gray.

    The map covers ``size``, height and width, of which the image is the upper left part.
    """
    layers = (
        cv2.resize(layer, size[::-1], interpolation=cv2.INTER_NEAREST)
        for layer in (colors.astype(np.float64), opacity.astype(np.float64))
    )
    colors, opacity = (layer[: image.shape[0], : image.shape[1]] for layer in layers)
    gray = image.mean(-1, keepdims=True)
    return (gray + (colors - gray) * opacity[..., None]).astype(np.uint8)


def contact_sheet(rows: Mapping[str, Sequence[np.ndarray]], columns: int) -> np.ndarray:
    """Lay images ``(H, W, 3)`` by caption, all of one size, out in lines below their captions."""
    lines = []
    for caption, images in rows.items():
        border = ((0, GAP), (0, GAP), (0, 0))
        tiles = [np.pad(image, border, constant_values=255) for image in images]
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
        head = np.full((CAPTION, columns * tiles[0].shape[1], 3), 255, np.uint8)
        cv2.putText(head, caption, (4, 18), FONT, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
        lines += [head, *(np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns))]
    return np.vstack(lines)
