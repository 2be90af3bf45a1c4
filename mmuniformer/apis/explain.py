"""What a backbone attends to on one image: attention, kept tokens, features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor

from mmuniformer.apis.attention_maps import Place, principal_colors, record
from mmuniformer.apis.config import scope_of, test_scale
from mmuniformer.apis.models import build_module
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.arch import TOTAL_STRIDE
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.uniformer import HYBRID_PERIOD, STAGE3_LAYOUTS
from mmuniformer.models.weights.load import load_pretrained
from mmuniformer.visualization.figures import Panel, Row, View, draw_rows, heat

LAYOUTS = ('global', 'window', 'hybrid')
DROPPED = (0.0, 0.0, 0.0, 0.8)


def explain(
    cfg: Config,
    checkpoint: str,
    image: np.ndarray,
    title: str = '',
    query: tuple[float, float] | None = None,
    layouts: Sequence[str] = (),
    window_size: int | None = None,
) -> Figure:
    """Draw what the backbone of a config attends to.

    UniFormer: a row for each layout shows the attention of the token at the query in stages 3 and
    4. UniFormerLight: rows show the kept patches and the score of the class token. The last row
    shows the features of each stage.

    Args:
        cfg: The config.
        checkpoint: Path or URL of a backbone or a whole model.
        image: BGR, ``(H, W, 3)`` uint8.
        title: Of the figure.
        query: x and y in pixels of ``image``; None for its center.
        layouts: Of stage 3; the default is ``LAYOUTS``.
        window_size: Window side in stage-3 tokens; None for the config's.

    Raises:
        CheckpointError: The checkpoint cannot be read or belongs to another backbone.
        UserError: An option does not fit, or the backbone is not one of this package.
    """
    unknown = [name for name in layouts if name not in STAGE3_LAYOUTS]
    if unknown:
        raise UserError(f'--layouts {unknown[0]}: choose from {", ".join(STAGE3_LAYOUTS)}')
    backbone = build_backbone(cfg, checkpoint)
    view, tensor = prepare(cfg, image, query)
    if isinstance(backbone, UniFormer):
        rows = layout_rows(backbone, view, tensor, layouts or LAYOUTS, window_size)
    elif query or layouts or window_size:
        raise UserError(
            '--query, --layouts and --window-size need a UniFormer: an hourglass network has one '
            'layout, and its query is the class token'
        )
    else:
        rows = hourglass_rows(backbone, tensor)
    return draw_rows(view, rows, title)


def build_backbone(cfg: Config, checkpoint: str) -> StagedBackbone:
    """Build the backbone of a config with the weights of a checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read or belongs to another backbone.
        UserError: The backbone is not one of this package.
    """
    if 'model' not in cfg:
        raise UserError('the config has no `model`')
    with scope_of(cfg):
        backbone = build_module(cfg.model.get('backbone', cfg.model))
    if not isinstance(backbone, StagedBackbone):
        kind = type(backbone).__name__
        raise UserError(f'the backbone is a {kind}: use a UniFormer or UniFormerLight')
    load_pretrained(backbone, checkpoint)
    return backbone.eval()


def prepare(
    cfg: Config, image: np.ndarray, query: tuple[float, float] | None = None
) -> tuple[View, Tensor]:
    """Resize, normalize and pad a BGR image as in a test, aspect ratio kept.

    Returns:
        The resized image, and the input of the network ``(1, 3, H', W')``.

    Raises:
        UserError: The query, x and y in pixels of the image, is outside it.
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
    channels = resized[..., :: -1 if settings.get('bgr_to_rgb') else 1]
    mean, std = np.array(settings.get('mean') or 0), np.array(settings.get('std') or 1)
    tensor = torch.from_numpy(((channels - mean) / std).astype(np.float32)).permute(2, 0, 1)[None]
    tensor = F.pad(tensor, (0, -size[0] % TOTAL_STRIDE, 0, -size[1] % TOTAL_STRIDE))
    padded = tuple(tensor.shape[2:])
    return View(resized[..., ::-1], padded, (x * size[0] / width, y * size[1] / height)), tensor


def feature_row(features: Iterable[Tensor], name: str) -> Row:
    """Show the feature map of each stage."""
    panels = []
    for stage, values in enumerate(features, 1):
        layer = principal_colors(values).numpy()
        panels.append(Panel(f'stage {stage}: {layer.shape[1]} x {layer.shape[0]}', layer))
    return name, panels


def shown_blocks(depths: Sequence[int]) -> list[Place]:
    """Choose the first, a middle and the last two blocks of stage 3, and the last of stage 4.

    The middle one and the last are global in hybrid layouts.
    """
    middle = max(1, depths[2] // 2 // HYBRID_PERIOD) * HYBRID_PERIOD
    third = {1, min(middle, depths[2]), max(1, depths[2] - 1), depths[2]}
    return [(3, block) for block in sorted(third)] + [(4, depths[3])]


def layout_rows(
    backbone: UniFormer,
    view: View,
    tensor: Tensor,
    layouts: Sequence[str],
    window_size: int | None = None,
) -> list[Row]:
    """Show the attention of the query in each layout, and the features of the first."""
    rows, features = [], []
    query = view.query[0] / view.padded[1], view.query[1] / view.padded[0]
    for layout in layouts:
        backbone.set_stage3_attn(layout, window_size)
        found = record(backbone, tensor, query)
        features = features or [feature_row(found.features, f'features, {layout}')]
        name = f'{layout} {backbone.window_size}' if layout in ('window', 'hybrid') else layout
        panels = [
            Panel('stage {}, block {}'.format(*place), heat(found.attention[place].numpy()), True)
            for place in shown_blocks(backbone.depths)
        ]
        rows.append((name, panels))
    return rows + features


def hourglass_rows(backbone: UniFormerLight, tensor: Tensor) -> list[Row]:
    """Show the kept patches, their score by the class token, and the features."""
    found = record(backbone, tensor)
    third, fourth = backbone.depths[2:]
    blocks = {(3, 2), (3, (third + 2) // 2), (3, third), (4, 1), (4, fourth)}
    kept, scores = [], []
    for place in sorted(blocks & found.kept.keys()):
        title = 'stage {}, block {}'.format(*place)
        mask = found.kept[place].numpy()
        kept.append(Panel(f'{title}: {mask.mean():.0%}', np.where(mask[..., None], 0.0, DROPPED)))
        scores.append(Panel(title, heat(found.scores[place].numpy())))
    return [('kept patches', kept), ('score', scores), feature_row(found.features, 'features')]
