"""What a backbone attends to on one image: attention, kept tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from mmuniformer.apis.attention_maps import Place, record
from mmuniformer.apis.config import channel_order, scope_of, test_scale
from mmuniformer.apis.models import build_module
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.arch import TOTAL_STRIDE
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.uniformer import HYBRID_PERIOD
from mmuniformer.models.weights.load import load_pretrained
from mmuniformer.visualization.draw import contact_sheet, overlay, put_label

LAYOUTS = ('global', 'window', 'hybrid')
TILE = 400
"""Longest side of an image in the sheet, in pixels."""
HEAT_OPACITY, DROPPED_OPACITY = 0.7, 0.8
BRIGHTEST = 0.995
"""Quantile of a map that gets the brightest color: a few outliers would darken the rest."""


class View(NamedTuple):
    """An image as a network sees it."""

    image: np.ndarray
    """BGR, ``(h, w, 3)`` uint8."""
    padded: tuple[int, int]
    """Height and width with the padding at the right and bottom."""
    query: tuple[float, float]
    """x and y in pixels."""


def explain(
    cfg: Config, checkpoint: str, image: np.ndarray, query: tuple[float, float] | None = None
) -> np.ndarray:
    """Draw what the backbone of a config attends to: a sheet of images, BGR ``(H, W, 3)`` uint8.

    UniFormer: lines show the attention of the token at the query in stages 3 and 4, one for each
    layout. UniFormerLight: lines show the kept patches and the score of the class token. The
    checkpoint is a backbone's or a whole model's, by path or URL; the image is as the sheet, and
    ``query`` x and y in its pixels, None for its center.

    Raises:
        CheckpointError: The checkpoint cannot be read or belongs to another backbone.
        UserError: The query does not fit, or the backbone is not one of this package.
    """
    backbone = build_backbone(cfg, checkpoint)
    view, tensor = prepare(cfg, image, query)
    if isinstance(backbone, UniFormer):
        lines = layout_lines(backbone, view, tensor)
    elif query:
        raise UserError('--query needs a UniFormer: the query of an hourglass is its class token')
    else:
        lines = hourglass_lines(backbone, view, tensor)
    return contact_sheet(lines, max(map(len, lines.values())))


def build_backbone(cfg: Config, checkpoint: str) -> StagedBackbone:
    """Build the backbone of a config with the weights of a checkpoint."""
    if 'model' not in cfg:
        raise UserError('the config has no `model`')
    with scope_of(cfg):
        backbone = build_module(cfg.model.get('backbone', cfg.model))
    kind = type(backbone).__name__
    if not isinstance(backbone, StagedBackbone):
        raise UserError(f'the backbone is a {kind}: use a UniFormer or UniFormerLight')
    if backbone.dims != 2:
        raise UserError(f'the backbone is a {kind}, for clips: explain shows networks for images')
    load_pretrained(backbone, checkpoint)
    return backbone.eval()


def prepare(
    cfg: Config, image: np.ndarray, query: tuple[float, float] | None = None
) -> tuple[View, Tensor]:
    """Resize, normalize and pad a BGR image as in a test, aspect ratio kept.

    Returns the resized image, and the input of the network ``(1, 3, H', W')``.
    """
    height, width = image.shape[:2]
    x, y = query or (width / 2, height / 2)
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'--query {x:g} {y:g} is outside the image of {width} x {height} pixels')
    zoom, scale = 1.0, test_scale(cfg)
    if 'input_size' in cfg.get('codec', {}):
        zoom = min(cfg.codec.input_size[0] / width, cfg.codec.input_size[1] / height)
    elif scale:
        zoom = min(max(scale) / max(height, width), min(scale) / min(height, width))
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    settings = cfg.model.get('data_preprocessor', {})
    channels = resized[..., :: -1 if channel_order(cfg) == 'RGB' else 1]
    mean, std = np.array(settings.get('mean') or 0), np.array(settings.get('std') or 1)
    tensor = torch.from_numpy(((channels - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
    tensor = F.pad(tensor, (0, -size[0] % TOTAL_STRIDE, 0, -size[1] % TOTAL_STRIDE))
    padded = tuple(tensor.shape[2:])
    return View(resized, padded, (x * size[0] / width, y * size[1] / height)), tensor


def heat(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Color a map ``(h, w)`` from dark at 0 to bright, with its opacity: NaN is transparent."""
    brightest = max(float(np.nanquantile(values, BRIGHTEST)), 1e-12)
    levels = np.nan_to_num(values / brightest).clip(0, 1) * 255
    colors = cv2.applyColorMap(levels.astype(np.uint8), cv2.COLORMAP_INFERNO)
    return colors, np.where(np.isnan(values), 0, HEAT_OPACITY)


def tile(
    view: View, title: str, colors: np.ndarray, opacity: np.ndarray, marked: bool = False
) -> np.ndarray:
    """Lay a map over the image in gray; mark the query if asked to."""
    drawn = overlay(view.image, colors, opacity, view.padded)
    scale = TILE / max(drawn.shape[:2])
    size = [max(1, round(side * scale)) for side in drawn.shape[1::-1]]
    drawn = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
    if marked:
        place = [int(side * scale) for side in view.query]
        cv2.circle(drawn, place, 5, (255, 255, 0), 2, cv2.LINE_AA)
    put_label(drawn, title, 0, 0, (60, 60, 60))
    return drawn


def shown_blocks(depths: Sequence[int]) -> list[Place]:
    """Choose the first, a middle (global in hybrids), the last blocks of stage 3, and stage 4's."""
    middle = max(1, depths[2] // 2 // HYBRID_PERIOD) * HYBRID_PERIOD
    third = {1, min(middle, depths[2]), max(1, depths[2] - 1), depths[2]}
    return [(3, block) for block in sorted(third)] + [(4, depths[3])]


def place_name(place: Place) -> str:
    """Return the title of a block's image."""
    return f'stage {place[0]}, block {place[1]}'


def layout_lines(
    backbone: UniFormer, view: View, tensor: Tensor
) -> Mapping[str, Sequence[np.ndarray]]:
    """Show the attention of the query in each layout."""
    lines = {}
    query = view.query[0] / view.padded[1], view.query[1] / view.padded[0]
    for layout in LAYOUTS:
        backbone.set_stage3_attn(layout)
        found = record(backbone, tensor, query)
        name = layout if layout == 'global' else f'{layout} {backbone.window_size}'
        lines[name] = [
            tile(view, place_name(place), *heat(found.attention[place].numpy()), True)
            for place in shown_blocks(backbone.depths)
        ]
    return lines


def hourglass_lines(
    backbone: UniFormerLight, view: View, tensor: Tensor
) -> Mapping[str, Sequence[np.ndarray]]:
    """Show the kept patches, and their score by the class token."""
    found = record(backbone, tensor)
    third, fourth = backbone.depths[2:]
    blocks = {(3, 2), (3, (third + 2) // 2), (3, third), (4, 1), (4, fourth)}
    kept, scores = [], []
    for place in sorted(blocks & found.kept.keys()):
        title = place_name(place)
        mask = found.kept[place].numpy()
        dropped = np.where(mask, 0, DROPPED_OPACITY)
        kept.append(tile(view, f'{title}: {mask.mean():.0%}', np.zeros((*mask.shape, 3)), dropped))
        scores.append(tile(view, title, *heat(found.scores[place].numpy())))
    return {'kept patches': kept, 'score': scores}
