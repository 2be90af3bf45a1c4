"""What a backbone attends to, recorded by hooks while it runs, in any layout.

One image at a time. Maps are ``(h, w)`` in tokens of their stage.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from mmuniformer.models.arch import ATTENTION_STAGES
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.blocks import GlobalBlock, tokens_of
from mmuniformer.models.hourglass import HourglassBlock
from mmuniformer.models.mhra import GlobalMHRA, attention_weights, count_windows, partition, reverse

Place = tuple[int, int]
"""Stage and block, both counted from 1."""


@dataclass
class Record:
    """What was recorded of one image."""

    attention: dict[Place, Tensor] = field(default_factory=dict)
    """Attention of the query token to each token, mean over heads; NaN in other windows."""
    kept: dict[Place, Tensor] = field(default_factory=dict)
    """Hourglass blocks: which patches were kept, boolean."""
    scores: dict[Place, Tensor] = field(default_factory=dict)
    """Hourglass blocks: the class token's score of each patch, after the block."""


def record(
    backbone: StagedBackbone, image: Tensor, query: tuple[float, float] = (0.5, 0.5)
) -> Record:
    """Run a backbone in eval mode on one normalized image, ``(1, C, H, W)``, and record it.

    ``query`` is the place of the query token: x and y in [0, 1), as shares of width and height.
    """
    found = Record()

    def keep_attention(place: Place, block: GlobalBlock, inputs: tuple) -> None:
        x, window_size = (*inputs, None)[:2]
        h, w = x.shape[2:]
        tokens = block.norm1(tokens_of(block.pos_embed(x)))
        token = int(query[1] * h), int(query[0] * w)
        found.attention[place] = attention_of(block.attn, tokens, token, window_size)

    def keep_tokens(place: Place, block: HourglassBlock, inputs: tuple, output: tuple) -> None:
        x, state = inputs
        h, w = x.shape[2:]
        kept = torch.ones(h * w, dtype=torch.bool, device=x.device)
        if block.keep_ratio < 1:
            order = state.score[0].argsort(descending=True)
            kept[order[int(h * w * block.keep_ratio) :]] = False
        found.kept[place] = kept.view(h, w)
        found.scores[place] = output[1].score[0].float().view(h, w)

    with ExitStack() as hooks, torch.no_grad():
        for stage in range(backbone.num_stages):
            blocks = backbone.blocks(stage) if stage in ATTENTION_STAGES else ()
            for index, block in enumerate(blocks):
                place = (stage + 1, index + 1)
                if isinstance(block, HourglassBlock):
                    hook = block.register_forward_hook(partial(keep_tokens, place))
                else:
                    hook = block.register_forward_pre_hook(partial(keep_attention, place))
                hooks.enter_context(hook)
        backbone(image)
    return found


def attention_of(
    attn: GlobalMHRA, x: Tensor, token: tuple[int, int], window_size: int | None
) -> Tensor:
    """Return the attention of one token, at row and column, to each: ``(h, w)``, mean over heads.

    ``x`` is the input of ``attn``, ``(1, h, w, C)``. Outside the token's window the map is NaN.
    """
    (row, column), (h, w) = token, x.shape[1:3]
    if window_size is None:
        windows, window, index = x.flatten(1, 2), 0, row * w + column
    else:
        windows = partition(x, window_size)
        window = row // window_size * count_windows(w, window_size) + column // window_size
        index = row % window_size * window_size + column % window_size
    q, k, _ = attn.heads(windows[window : window + 1])
    weights = attention_weights(q[:, :, index : index + 1], k)[0, :, 0].mean(0)
    if window_size is None:
        return weights.view(h, w)
    everywhere = weights.new_full((*windows.shape[:2], 1), torch.nan)
    everywhere[window, :, 0] = weights
    return reverse(everywhere, window_size, h, w)[0, ..., 0]
