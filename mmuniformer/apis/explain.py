"""A figure of what a backbone looks at on one image: attention, kept tokens, features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from mmuniformer.apis.attention_maps import Place, principal_colors, record
from mmuniformer.apis.models import build_module
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.base import MIN_SIDE, StagedBackbone
from mmuniformer.models.uniformer import HYBRID_PERIOD
from mmuniformer.models.weights.load import load_pretrained

LAYOUTS = ('global', 'window', 'hybrid')
HEAT = matplotlib.colormaps['inferno']
HEAT_OPACITY = 0.7
BRIGHTEST = 0.995
"""Quantile of a map that gets the brightest colour: a few outliers would darken the rest."""
DROPPED = (0.0, 0.0, 0.0, 0.8)
PANEL_INCHES = 2.6


class View(NamedTuple):
    """An image as a network sees it.

    ``picture`` is RGB ``(h, w, 3)`` at the network's size, ``tensor`` ``(1, 3, H, W)`` is
    normalized and padded to the right and bottom, ``query`` a point of the picture in its pixels.
    """

    picture: np.ndarray
    tensor: Tensor
    query: tuple[float, float]

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width with padding."""
        return tuple(self.tensor.shape[2:])

    @property
    def token(self) -> tuple[float, float]:
        """The query's x and y as parts of the padded width and height."""
        return self.query[0] / self.padded[1], self.query[1] / self.padded[0]


class Panel(NamedTuple):
    """A colour map RGBA ``(h, w, 4)`` in [0, 1] that covers the padded image."""

    title: str
    layer: np.ndarray
    marks_query: bool = False


Row = tuple[str, list[Panel]]


def build_backbone(cfg: Config, checkpoint: str) -> StagedBackbone:
    """Build the backbone of a config with the weights of a checkpoint, of whatever kind.

    Raises:
        CheckpointError: The file can't be read or is of another backbone.
        UserError: The config's backbone is not one of this package.
    """
    settings = dict(cfg.get('model', {}).get('backbone') or {'type': None})
    settings.pop('init_cfg', None)
    if str(settings['type']).rpartition('.')[2] not in ('UniFormer', 'UniFormerLight'):
        raise UserError(f"the config's backbone is {settings['type']}, not UniFormer(Light)")
    backbone = build_module(settings)
    load_pretrained(backbone, checkpoint)
    return backbone.eval()


def test_zoom(cfg: Config, height: int, width: int) -> float:
    """Return the factor by which the config's test pipeline resizes an image, ratio kept."""
    if 'input_size' in cfg.get('codec', {}):
        return min(cfg.codec.input_size[0] / width, cfg.codec.input_size[1] / height)
    pipeline = cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline', ())
    for step in pipeline:
        if str(step['type']).rpartition('.')[2] == 'Resize' and 'scale' in step:
            long, short = max(step.scale), min(step.scale)
            return min(long / max(height, width), short / min(height, width))
    return 1.0


def view(cfg: Config, image: np.ndarray, query: tuple[float, float] | None = None) -> View:
    """Bring a picture to the size and the colours that the network is tested with.

    Args:
        cfg: The config.
        image: BGR, ``(H, W, 3)``, uint8.
        query: x and y in pixels of ``image``; None for the centre.

    Raises:
        UserError: The query is outside the image.
    """
    height, width = image.shape[:2]
    x, y = query or (width / 2, height / 2)
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'--query {x:g} {y:g} is outside the image of {width} x {height} pixels')
    zoom = test_zoom(cfg, height, width)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    picture = picture[..., ::-1]
    preprocessor = cfg.model.get('data_preprocessor', {})
    colors = picture if preprocessor.get('bgr_to_rgb', True) else picture[..., ::-1]
    mean, std = (np.array(preprocessor.get(key, (0, 1)[key == 'std'])) for key in ('mean', 'std'))
    tensor = torch.from_numpy(((colors - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
    padding = (0, -size[0] % MIN_SIDE, 0, -size[1] % MIN_SIDE)
    tensor = torch.nn.functional.pad(tensor, padding)
    return View(picture, tensor, (x * size[0] / width, y * size[1] / height))


def heat(values: Tensor) -> np.ndarray:
    """Colour a map ``(h, w)``, 0 dark and its brightest part light; NaN stays transparent."""
    brightest = values[~values.isnan()].quantile(BRIGHTEST).clamp(min=1e-12)
    layer = HEAT((values / brightest).clamp(0, 1).nan_to_num().numpy())
    layer[..., 3] = np.where(values.isnan(), 0, HEAT_OPACITY)
    return layer


def feature_row(features: Iterable[Tensor], name: str) -> Row:
    """Show the feature map of each stage."""
    panels = []
    for stage, values in enumerate(features, 1):
        colors = principal_colors(values).numpy()
        layer = np.concatenate([colors, np.ones_like(colors[..., :1])], -1)
        panels.append(Panel(f'stage {stage}: {layer.shape[1]} x {layer.shape[0]}', layer))
    return name, panels


def shown_blocks(depths: Sequence[int]) -> list[Place]:
    """Choose blocks of stage 3 (first, a middle one that is global in hybrid, last two), 4 (last).

    The last two of stage 3 differ in hybrid layouts too.
    """
    middle = max(1, depths[2] // 2 // HYBRID_PERIOD) * HYBRID_PERIOD
    third = {1, min(middle, depths[2]), max(1, depths[2] - 1), depths[2]}
    return [(3, block) for block in sorted(third)] + [(4, depths[3])]


def explain_layouts(
    backbone: UniFormer, shown: View, layouts: Sequence[str], window_size: int | None = None
) -> list[Row]:
    """Show what the query attends to in each layout, and the features of the first."""
    rows, features = [], None
    for layout in layouts:
        backbone.set_stage3_attn(layout, window_size)
        found = record(backbone, shown.tensor, shown.token)
        features = features or feature_row(found.features, f'features, {layout}')
        places = [place for place in shown_blocks(backbone.depths) if place in found.rows]
        name = f'{layout} {backbone.window_size}' if layout in ('window', 'hybrid') else layout
        panels = [
            Panel(f'stage {stage}, block {block}', heat(found.rows[stage, block]), True)
            for stage, block in places
        ]
        rows.append((name, panels))
    return [*rows, features]


def explain_hourglass(backbone: UniFormerLight, shown: View) -> list[Row]:
    """Show which patches take part in attention, and the class token's score of them."""
    found = record(backbone, shown.tensor)
    third, fourth = (backbone.depths[stage] for stage in (2, 3))
    blocks = {(3, 2), (3, (third + 2) // 2), (3, third), (4, 1), (4, fourth)}
    places = [place for place in sorted(blocks) if place in found.kept]
    kept, scores = [], []
    for place in places:
        title = 'stage {}, block {}'.format(*place)
        mask = found.kept[place].numpy()
        kept.append(Panel(f'{title}: {mask.mean():.0%}', np.where(mask[..., None], 0.0, DROPPED)))
        scores.append(Panel(title, heat(found.scores[place])))
    return [('kept patches', kept), ('score', scores), feature_row(found.features, 'features')]


def draw(shown: View, rows: Sequence[Row], title: str) -> Figure:
    """Draw the image and rows of panels over it."""
    height, width = shown.picture.shape[:2]
    columns = 1 + max(len(panels) for _, panels in rows)
    panel_height = PANEL_INCHES * height / width
    figure = Figure(
        figsize=(columns * PANEL_INCHES, len(rows) * (panel_height + 0.25) + 0.4),
        layout='constrained',
    )
    figure.get_layout_engine().set(h_pad=0.03, w_pad=0.03)
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for (name, panels), row in zip(rows, axes, strict=True):
        row[0].imshow(shown.picture)
        row[0].set_title(name, fontsize=9, fontweight='bold')
        if any(panel.marks_query for panel in panels):
            mark(row[0], shown)
        for axis, panel in zip(row[1:], panels, strict=False):
            draw_panel(axis, shown, panel)
    return figure


def draw_panel(axis: Axes, shown: View, panel: Panel) -> None:
    """Lay a panel over the image in grey, without the padding."""
    height, width = shown.picture.shape[:2]
    axis.imshow(shown.picture.mean(-1), cmap='gray', vmin=0, vmax=255)
    padded_height, padded_width = shown.padded
    extent = (-0.5, padded_width - 0.5, padded_height - 0.5, -0.5)
    axis.imshow(panel.layer, extent=extent, interpolation='nearest')
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.set_title(panel.title, fontsize=8)
    if panel.marks_query:
        mark(axis, shown)


def mark(axis: Axes, shown: View) -> None:
    """Mark the query."""
    axis.scatter(*shown.query, s=30, marker='o', facecolor='none', edgecolor='cyan', linewidth=1.5)
