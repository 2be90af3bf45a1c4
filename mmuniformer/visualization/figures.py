"""Figures that commands write: pictures in a grid, and saving without surprises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmuniformer.errors import UserError, refuse_existing

FORMATS = ('.png', '.pdf', '.svg', '.jpg')
DPI = 120
TILE_INCHES = 3.2
TITLE_INCHES = 0.35


def grid_of(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> Figure:
    """Lay out pictures, BGR ``(H, W, 3)`` of any sizes, in rows, each under its title."""
    columns = min(columns, len(pictures))
    # Rows are as high as their pictures: upright crops of people need more than landscapes.
    ratios = [
        max(picture.shape[0] / picture.shape[1] for picture in pictures[start : start + columns])
        for start in range(0, len(pictures), columns)
    ]
    figure = Figure(
        figsize=(columns * TILE_INCHES, sum(ratios) * TILE_INCHES + len(ratios) * TITLE_INCHES),
        layout='constrained',
    )
    figure.get_layout_engine().set(h_pad=0.08)
    grid = {'height_ratios': ratios}
    axes = list(figure.subplots(len(ratios), columns, squeeze=False, gridspec_kw=grid).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, picture, title in zip(axes, pictures, titles, strict=False):
        axis.imshow(picture[..., ::-1])
        axis.set_title(title, fontsize=8)
    return figure


def check_target(path: Path, force: bool) -> None:
    """Refuse, before any work is done, a file that could not be written in the end.

    Raises:
        UserError: Its format is unknown, or it is there and ``force`` is off.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f'{path} should end in one of {", ".join(FORMATS)}')
    refuse_existing(path, force)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, with the folders on the way to it.

    Raises:
        UserError: The place can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=DPI)
    except OSError as error:
        raise UserError(f'{path} could not be written: {error}') from error
