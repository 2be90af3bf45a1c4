"""What a backbone attends to on one image or clip: attention, kept tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor

from mmuniformer.apis.attention_maps import Place, Record, record
from mmuniformer.apis.config import channel_order, read_order, scope_of, split_data, test_scale
from mmuniformer.apis.inference.decode import MAX_PIXELS, read_image
from mmuniformer.apis.inference.labels import open_clip
from mmuniformer.apis.inference.sources import Source
from mmuniformer.apis.models import build_module
from mmuniformer.errors import UserError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.arch import TOTAL_STRIDE
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.clips import TIME_STRIDES
from mmuniformer.models.uniformer import HYBRID_PERIOD
from mmuniformer.models.weights.load import load_pretrained
from mmuniformer.visualization.draw import contact_sheet, overlay, put_label

LAYOUTS = ('global', 'window', 'hybrid')
TILE = 400
"""Longest side of an image in the sheet, in pixels."""
FRAME_TILE, FRAMES_A_LINE = 200, 8
"""The same of a clip's frames, and how many stand side by side."""
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
    cfg: Config, checkpoint: str, image: np.ndarray | str | Path,
    query: tuple[float, float] | None = None, frame: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> np.ndarray:  # fmt: skip
    """Draw what the backbone of a config attends to: a sheet of images, BGR ``(H, W, 3)`` uint8.

    UniFormer: lines show the attention of the token at the query in stages 3 and 4, one for each
    layout; of clips one for each block, frame by frame. UniFormerLight: lines show the kept patches
    and the score of the class token. The checkpoint is a backbone's or a whole model's, by path or
    URL; the image is as the sheet or a path, for clips that of a video or of a folder of frames.
    ``query`` is x and y in its pixels (of clips after the test pipeline's resizing and cropping)
    and ``frame`` counts from 0 in the clip, None for the center.

    Raises:
        CheckpointError: The checkpoint cannot be read or belongs to another backbone.
        UserError: The query does not fit, or the backbone is not one of this package.
    """
    backbone = build_backbone(cfg, checkpoint)
    if backbone.hourglass and (query or frame is not None):
        raise UserError(
            '--query and --frame need a UniFormer: the query of an hourglass is its class token'
        )
    if backbone.dims == 3:
        views, tensor = prepare_clip(cfg, Path(image), query, max_pixels)
        lines = clip_lines(backbone, views, tensor, frame)
        return contact_sheet(lines, min(FRAMES_A_LINE, max(map(len, lines.values()))))
    if frame is not None:
        raise UserError(f'--frame {frame}: the network takes images, leave the option out')
    if not isinstance(image, np.ndarray):
        image = read_image(Path(image), max_pixels)
    view, tensor = prepare(cfg, image, query)
    if isinstance(backbone, UniFormer):
        lines = layout_lines(backbone, view, tensor)
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
    if getattr(backbone, 'split', False):
        raise UserError('split=True: explain shows attention in space and time at once')
    load_pretrained(backbone, checkpoint)
    return backbone.eval()


def prepare(
    cfg: Config, image: np.ndarray, query: tuple[float, float] | None = None
) -> tuple[View, Tensor]:
    """Resize, normalize and pad a BGR image as in a test, aspect ratio kept.

    Returns the resized image, and the input of the network ``(1, 3, H', W')``.
    """
    height, width = image.shape[:2]
    x, y = check_query(query, width, height)
    zoom, scale = 1.0, test_scale(cfg)
    if 'input_size' in cfg.get('codec', {}):
        zoom = min(cfg.codec.input_size[0] / width, cfg.codec.input_size[1] / height)
    elif scale:
        zoom = min(max(scale) / max(height, width), min(scale) / min(height, width))
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    tensor = normalize(cfg, resized[None])[:, :, 0]
    padded = tuple(tensor.shape[2:])
    return View(resized, padded, (x * size[0] / width, y * size[1] / height)), tensor


def check_query(query: tuple[float, float] | None, width: int, height: int) -> tuple[float, float]:
    """Return a query in an image, by default its center; refuse one outside."""
    x, y = query or (width / 2, height / 2)
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'--query {x:g} {y:g} is outside the image of {width} x {height} pixels')
    return x, y


def normalize(cfg: Config, frames: np.ndarray) -> Tensor:
    """Return BGR frames ``(T, H, W, 3)`` as a network takes them: ``(1, 3, T, H', W')``, padded."""
    settings = cfg.model.get('data_preprocessor', {})
    channels = frames[..., :: -1 if channel_order(cfg) == 'RGB' else 1]
    mean, std = np.array(settings.get('mean') or 0), np.array(settings.get('std') or 1)
    tensor = torch.from_numpy(((channels - mean) / std).astype(np.float32)).permute(3, 0, 1, 2)
    height, width = frames.shape[1:3]
    return F.pad(tensor[None], (0, -width % TOTAL_STRIDE, 0, -height % TOTAL_STRIDE))


def prepare_clip(
    cfg: Config, path: Path, query: tuple[float, float] | None, max_pixels: int = MAX_PIXELS
) -> tuple[list[View], Tensor]:
    """Read the middle one of a video's views in a test.

    Returns its frames, and the input of the network ``(1, 3, T, H', W')``.
    """
    clip = open_clip(Source(path, path.stem), 0, max_pixels)
    with scope_of(cfg):
        pipeline = Compose(split_data(cfg)['pipeline'])
    inputs = pipeline(clip.sample)['inputs']
    frames = inputs[len(inputs) // 2].permute(1, 2, 3, 0).numpy()
    frames = np.ascontiguousarray(frames[..., :: -1 if read_order(cfg) == 'RGB' else 1])
    x, y = check_query(query, *frames.shape[2:0:-1])
    tensor = normalize(cfg, frames)
    return [View(frame, tuple(tensor.shape[3:]), (x, y)) for frame in frames], tensor


def heat(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Color a map ``(..., w)`` from dark at 0 to bright, with its opacity: NaN is transparent."""
    brightest = max(float(np.nanquantile(values, BRIGHTEST)), 1e-12)
    levels = np.nan_to_num(values / brightest).clip(0, 1) * 255
    lines = levels.astype(np.uint8).reshape(-1, levels.shape[-1])
    colors = cv2.applyColorMap(lines, cv2.COLORMAP_INFERNO).reshape(*levels.shape, 3)
    return colors, np.where(np.isnan(values), 0, HEAT_OPACITY)


def tile(
    view: View, title: str, colors: np.ndarray, opacity: np.ndarray, marked: bool = False,
    longest: int = TILE,
) -> np.ndarray:  # fmt: skip
    """Lay a map over the image in gray; mark the query if asked to."""
    drawn = overlay(view.image, colors, opacity, view.padded)
    scale = longest / max(drawn.shape[:2])
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


def shown_hourglasses(depths: Sequence[int], found: Record) -> list[Place]:
    """Choose the first that drops, a middle and the last blocks of stage 3, and stage 4's."""
    third, fourth = depths[2:]
    blocks = {(3, 2), (3, (third + 2) // 2), (3, third), (4, 1), (4, fourth)}
    return sorted(blocks & found.kept.keys())


def darkened(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return black, with the opacity that hides what was not kept."""
    return np.zeros((*kept.shape, 3)), np.where(kept, 0, DROPPED_OPACITY)


def clip_lines(
    backbone: StagedBackbone, views: Sequence[View], tensor: Tensor, frame: int | None = None
) -> Mapping[str, Sequence[np.ndarray]]:
    """Show for each block what is attended to in each second frame, which tokens stand for."""
    stride = TIME_STRIDES[0]
    frame = len(views) // 2 if frame is None else frame
    if not 0 <= frame < len(views):
        raise UserError(
            f'--frame {frame} is outside the clip: its {len(views)} frames count from 0'
        )
    token, shown = frame // stride, views[::stride]

    def line(colors: np.ndarray, opacity: np.ndarray, marked: bool = False) -> list[np.ndarray]:
        return [
            tile(
                view, f'frame {index * stride}', colors[index], opacity[index],
                marked and index == token, FRAME_TILE,
            )
            for index, view in enumerate(shown)
        ]  # fmt: skip

    view, lines = views[0], {}
    query = view.query[0] / view.padded[1], view.query[1] / view.padded[0]
    found = record(backbone, tensor, (*query, (token + 0.5) / len(shown)))
    if not backbone.hourglass:
        for place in shown_blocks(backbone.depths):
            lines[place_name(place)] = line(*heat(found.attention[place].numpy()), True)
        return lines
    for place in shown_hourglasses(backbone.depths, found):
        mask = found.kept[place].numpy()
        lines[f'{place_name(place)}: kept patches, {mask.mean():.0%}'] = line(*darkened(mask))
        lines[f'{place_name(place)}: score'] = line(*heat(found.scores[place].numpy()))
    return lines


def hourglass_lines(
    backbone: UniFormerLight, view: View, tensor: Tensor
) -> Mapping[str, Sequence[np.ndarray]]:
    """Show the kept patches, and their score by the class token."""
    found = record(backbone, tensor)
    kept, scores = [], []
    for place in shown_hourglasses(backbone.depths, found):
        title = place_name(place)
        mask = found.kept[place].numpy()
        kept.append(tile(view, f'{title}: {mask.mean():.0%}', *darkened(mask)))
        scores.append(tile(view, title, *heat(found.scores[place].numpy())))
    return {'kept patches': kept, 'score': scores}
