"""Drawings of predictions over pictures (BGR, uint8). Line widths follow the picture's size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
Colour = tuple[int, int, int]

GOLDEN = 0.618034
"""Steps of this part of a turn keep hues apart, however many there are."""


def colours(palette: object, count: int) -> list[Colour]:
    """Return BGR colours from an RGB palette, or distinct ones where there is none for each."""
    if isinstance(palette, (list, tuple, np.ndarray)) and len(palette) >= count:
        return [(int(b), int(g), int(r)) for r, g, b in palette[:count]]
    values = (colorsys.hsv_to_rgb(0.02 + GOLDEN * i, 0.75, 0.95) for i in range(count))
    return [(int(255 * b), int(255 * g), int(255 * r)) for r, g, b in values]


def thickness(picture: np.ndarray) -> int:
    """Return a line width in pixels that suits a picture."""
    return max(1, round(max(picture.shape[:2]) / 400))


def blend(picture: np.ndarray, mask: np.ndarray, colour: Colour, opacity: float = 0.45) -> None:
    """Tint the pixels of a boolean mask in place."""
    tint = np.array(colour, dtype=np.float32)
    picture[mask] = (picture[mask] * (1 - opacity) + tint * opacity).round().astype(np.uint8)


def put_label(
    picture: np.ndarray, text: str, x: float, y: float, colour: Colour, centred: bool = False
) -> None:
    """Write on a coloured plate, moved into the picture where it would leave it.

    The point is the plate's lower left corner, or its centre.
    """
    height, width = picture.shape[:2]
    scale = min(1.2, max(0.3, max(height, width) / 1400))
    weight = 2 if scale > 0.8 else 1
    (w, h), below = cv2.getTextSize(text, FONT, scale, weight)
    if centred:
        x, y = x - w / 2, y + (h + below) / 2
    x = int(min(max(0, x), max(0, width - w - 2)))
    y = int(min(max(h + below, y), height))
    cv2.rectangle(picture, (x, y - h - below), (x + w + 2, y), colour, -1)
    bright = colour[0] * 0.114 + colour[1] * 0.587 + colour[2] * 0.299 > 140
    ink = (0, 0, 0) if bright else (255, 255, 255)
    cv2.putText(picture, text, (x + 1, y - below // 2 - 1), FONT, scale, ink, weight, cv2.LINE_AA)


def draw_instances(
    picture: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    colour_of: Sequence[Colour],
    masks: np.ndarray | None = None,
) -> np.ndarray:
    """Draw masks, boxes and labels; what comes first lies on top.

    Args:
        picture: ``(H, W, 3)``; it is left as it is.
        boxes: ``(N, 4)``, x1, y1, x2, y2 in pixels.
        labels: One a box.
        colour_of: One a box.
        masks: ``(N, H, W)`` boolean.
    """
    result = picture.copy()
    line = thickness(picture)
    order = range(len(boxes) - 1, -1, -1)
    for i in order if masks is not None else ():
        blend(result, masks[i], colour_of[i])
        outline, _ = cv2.findContours(
            masks[i].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(result, outline, -1, colour_of[i], line, cv2.LINE_AA)
    for i in order:
        x1, y1, x2, y2 = (int(round(float(v))) for v in boxes[i])
        cv2.rectangle(result, (x1, y1), (x2, y2), colour_of[i], line)
    for i in order:
        put_label(result, labels[i], boxes[i][0], boxes[i][1], colour_of[i])
    return result


def draw_map(
    picture: np.ndarray, classes: np.ndarray, names: Sequence[str], colour_of: Sequence[Colour]
) -> np.ndarray:
    """Tint each pixel by its class, outline the classes, and name each where it is widest.

    Args:
        picture: ``(H, W, 3)``; it is left as it is.
        classes: ``(H, W)``, class indices.
        names: One a class.
        colour_of: One a class.
    """
    table = np.array(colour_of, dtype=np.uint8)
    result = cv2.addWeighted(picture, 0.5, table[classes], 0.5, 0)
    smallest = picture.shape[0] * picture.shape[1] / 400
    labels = []
    for index in np.unique(classes):
        # The border lets classes end where the picture does.
        mask = np.pad((classes == index).astype(np.uint8), 1)
        outline, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(result, outline, -1, colour_of[index], thickness(picture), offset=(-1, -1))
        if mask.sum() >= smallest:
            # The centre of the largest circle inside: where a name sits well on any shape.
            depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
            labels.append((index, *np.unravel_index(depth.argmax(), depth.shape)))
    for index, y, x in labels:
        put_label(result, names[index], x - 1, y - 1, colour_of[index], centred=True)
    return result


def draw_people(
    picture: np.ndarray,
    boxes: np.ndarray,
    keypoints: np.ndarray,
    visible: np.ndarray,
    links: Sequence[tuple[int, int]],
    link_colours: Sequence[Colour],
    point_colours: Sequence[Colour],
) -> np.ndarray:
    """Draw skeletons in their boxes.

    Args:
        picture: ``(H, W, 3)``; it is left as it is.
        boxes: ``(N, 4)``, x1, y1, x2, y2 in pixels.
        keypoints: ``(N, K, 2)``, x, y in pixels.
        visible: ``(N, K)``, which of them to draw.
        links: Pairs of key points to join.
        link_colours: One a link.
        point_colours: One a key point.
    """
    result = picture.copy()
    line = thickness(picture)
    for box, points, shown in zip(boxes, keypoints, visible, strict=True):
        x1, y1, x2, y2 = (int(round(float(v))) for v in box)
        cv2.rectangle(result, (x1, y1), (x2, y2), (255, 255, 255), line, cv2.LINE_AA)
        places = [(int(round(float(x))), int(round(float(y)))) for x, y in points]
        for (start, end), colour in zip(links, link_colours, strict=True):
            if shown[start] and shown[end]:
                cv2.line(result, places[start], places[end], colour, 2 * line, cv2.LINE_AA)
        for place, show, colour in zip(places, shown, point_colours, strict=True):
            if show:
                cv2.circle(result, place, 2 * line, colour, -1, cv2.LINE_AA)
                cv2.circle(result, place, 2 * line, (0, 0, 0), 1, cv2.LINE_AA)
    return result
