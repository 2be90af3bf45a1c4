"""Targets of token labeling: a label for each token, cut from a label map as the crop was cut.

A label map has for each cell of a grid over the whole image the five best classes and their logits,
as ``(2, 5, G, G)`` in half precision: logits, then class numbers (arXiv 2104.10858).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmuniformer.compat import load_file
from mmuniformer.datasets.rand_augment import Operation, Warp
from mmuniformer.errors import UserError
from mmuniformer.models.weights.files import UNREADABLE


def read_label_map(path: Path, grid: int) -> Tensor:
    """Read a label map, as float32.

    Raises:
        UserError: There is no file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(f'{path}, a label map, does not exist: make or fetch it')
    try:
        label_map = load_file(path, 'cpu')
    except UNREADABLE as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'{path} cannot be read as a label map ({reason}): make or fetch it again'
        ) from error
    shape = tuple(getattr(label_map, 'shape', ()))
    if len(shape) != 4 or (shape[0], *shape[2:]) != (2, grid, grid):
        what = f'a tensor {shape}' if shape else f'a {type(label_map).__name__}'
        raise UserError(
            f'{path} holds {what}, and a label map is (2, k, {grid}, {grid}): logits and class '
            'numbers of the k best classes in each cell. Make or fetch it again, or set grid of '
            'LoadLabelMap to the side of your maps'
        )
    if not torch.isfinite(label_map).all():
        raise UserError(f'{path} holds NaN or Inf: make or fetch it again')
    return label_map.float()


def moved(label_map: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Return a label map after the warps among an image's operations, as they were released.

    Each cell takes the nearest cell to where the warp leads, of numbers from 0; logits from outside
    of the map are 0.
    """
    rows, columns = label_map.shape[-2:]
    y = torch.arange(rows, dtype=torch.float64)[:, None]
    x = torch.arange(columns, dtype=torch.float64)
    for operation in operations:
        if not isinstance(operation, Warp):
            continue
        a, b, c, d, e, f = operation.matrix(columns, rows)
        to_x, to_y = a * x + b * y + c, d * x + e * y + f
        inside = (to_x >= 0) & (to_x <= columns - 1) & (to_y >= 0) & (to_y <= rows - 1)
        at_y = (to_y + 0.5).floor().long().clamp(0, rows - 1)
        at_x = (to_x + 0.5).floor().long().clamp(0, columns - 1)
        label_map = label_map[..., at_y, at_x]
        label_map[0] *= inside
    return label_map


def token_label_target(
    label: int,
    label_map: Tensor,
    crop: tuple[float, float, float, float],
    label_size: int,
    num_classes: int = 1000,
    smoothing: float = 0.1,
) -> Tensor:
    """Return what ``TokenLabelHead`` takes as ``token_labels``: ``(classes, 2 + label_size**2)``.

    The columns are the smoothed label, the label of the whole crop, and those of its tokens. As
    the released networks were trained, the crop's axes are exchanged on the map.

    Args:
        label: The image's class.
        label_map: ``(2, 5, G, G)``.
        crop: Top, left, height and width of the crop, as shares of the image.
        label_size: Side of the network's last map.
        num_classes: Count of classes.
        smoothing: Share of a label that is spread over all classes.
    """
    logits, side = label_map[0].float(), label_map.shape[-1]
    # Of the classes that the map names; all others have logits of 0.
    classes, places = label_map[1].long().unique(return_inverse=True)
    dense = logits.new_zeros(len(classes), side, side).scatter_(0, places, logits)
    first, second, height, width = (edge * side for edge in crop)
    # Released: what is read as the box's x range is its range of rows.
    columns, rows = (first - 0.5, height), (second - 0.5, width)
    parts = []
    for size in (1, label_size):
        by_row, by_column = (bin_weights(*span, size, side) for span in (rows, columns))
        parts.append((by_row @ dense @ by_column.T).flatten(1))
    off = smoothing / num_classes
    scores = logits.new_zeros(num_classes, 1 + label_size**2)
    scores[classes] = torch.cat(parts, 1)
    maps = scores.softmax(0) * (1 - smoothing + off) + off
    given = torch.full((num_classes, 1), off)
    given[label] = 1 - smoothing + off
    return torch.cat([given, maps], 1)


def bin_weights(start: float, length: float, bins: int, side: int) -> Tensor:
    """Return how much each of ``side`` cells counts in each bin, ``(bins, side)``: RoIAlign.

    Each bin is the mean of as many points as it is long, rounded up, interpolated linearly.
    """
    length = max(length, 1.0)
    points = max(math.ceil(length / bins), 1)
    at = start + (torch.arange(bins * points) + 0.5) * (length / bins / points)
    inside = ((at >= -1) & (at <= side)).float()
    at = at.clamp(0, side - 1)
    low = at.floor().long()
    share = at - low
    weights = torch.zeros(bins * points, side)
    weights.scatter_add_(1, low[:, None], (inside * (1 - share))[:, None])
    weights.scatter_add_(1, (low + 1).clamp(max=side - 1)[:, None], (inside * share)[:, None])
    return weights.view(bins, points, side).mean(1)
