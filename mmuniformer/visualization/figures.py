"""Maps laid over an image, in rows of panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

HEAT = matplotlib.colormaps['inferno']
HEAT_OPACITY = 0.7
BRIGHTEST = 0.995
"""Quantile of a map that gets the brightest color: a few outliers would darken the rest."""
PANEL_INCHES = 2.6


class View(NamedTuple):
    """An image as a network sees it."""

    image: np.ndarray
    """RGB, ``(h, w, 3)`` uint8."""
    padded: tuple[int, int]
    """Height and width with the padding at the right and bottom."""
    query: tuple[float, float]
    """x and y of a point of interest, in pixels."""


class Panel(NamedTuple):
    """Colors RGB or RGBA ``(h, w, 3 or 4)`` in [0, 1] that cover the padded image."""

    title: str
    layer: np.ndarray
    marks_query: bool = False


Row = tuple[str, list[Panel]]


def heat(values: np.ndarray) -> np.ndarray:
    """Color a map ``(h, w)`` from dark at 0 to bright; NaN stays transparent."""
    brightest = max(float(np.nanquantile(values, BRIGHTEST)), 1e-12)
    layer = HEAT(np.nan_to_num((values / brightest).clip(0, 1)))
    layer[..., 3] = np.where(np.isnan(values), 0, HEAT_OPACITY)
    return layer


def draw_rows(view: View, rows: Sequence[Row], title: str) -> Figure:
    """Draw the image and rows of panels over it in gray, each row under its name."""
    height, width = view.image.shape[:2]
    columns = 1 + max(len(panels) for _, panels in rows)
    panel_height = PANEL_INCHES * height / width
    figure = Figure(
        figsize=(columns * PANEL_INCHES, len(rows) * (panel_height + 0.25) + 0.4),
        layout='constrained',
    )
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.03)
    figure.suptitle(title, fontsize=9, parse_math=False)  # a file's name may hold $
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    extent = (-0.5, view.padded[1] - 0.5, view.padded[0] - 0.5, -0.5)
    for (name, panels), (first, *others) in zip(rows, axes, strict=True):
        first.imshow(view.image)
        first.set_title(name, fontsize=9, fontweight='bold')
        marked = [first] if any(panel.marks_query for panel in panels) else []
        for axis, panel in zip(others, panels, strict=False):
            axis.imshow(view.image.mean(-1), cmap='gray', vmin=0, vmax=255)
            axis.imshow(panel.layer, extent=extent, interpolation='nearest')
            axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))  # without the padding
            axis.set_title(panel.title, fontsize=8)
            marked += [axis] * panel.marks_query
        for axis in marked:
            axis.scatter(*view.query, s=30, facecolor='none', edgecolor='cyan', linewidth=1.5)
    return figure
