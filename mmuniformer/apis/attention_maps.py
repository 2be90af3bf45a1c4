"""What a backbone attends to, recorded by hooks while it runs, in any layout.

One image or clip at a time. Maps are ``(h, w)`` in tokens of their stage, of clips ``(t, h, w)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
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
    """What was recorded of one image or clip."""

    attention: dict[Place, Tensor] = field(default_factory=dict)
    """Attention of the query token to each token, mean over heads; NaN in other windows."""
    kept: dict[Place, Tensor] = field(default_factory=dict)
    """Hourglass blocks: which patches were kept, boolean."""
    scores: dict[Place, Tensor] = field(default_factory=dict)
    """Hourglass blocks: the class token's score of each patch, after the block."""


def record(
    backbone: StagedBackbone, image: Tensor, query: Sequence[float] = (0.5, 0.5, 0.5)
) -> Record:
    """Run a backbone in eval mode on one normalized image or clip, and record it.

    ``image`` is ``(1, C, H, W)`` or ``(1, C, T, H, W)``. ``query`` is the place of the query token:
    x, y and of clips time, in [0, 1), as shares of width, height and length.
    """
    found = Record()

    def keep_attention(place: Place, block: GlobalBlock, inputs: tuple) -> None:
        x, window_size = (*inputs, None)[:2]
        tokens = block.norm1(tokens_of(block.pos_embed(x)))
        size = x.shape[:1:-1]  # w, h and of clips t
        token = tuple(int(share * side) for share, side in zip(query, size, strict=False))[::-1]
        found.attention[place] = attention_of(block.attn, tokens, token, window_size)

    def keep_tokens(place: Place, block: HourglassBlock, inputs: tuple, output: tuple) -> None:
        x, state = inputs
        size = x.shape[2:]
        kept = torch.ones(size.numel(), dtype=torch.bool, device=x.device)
        if block.keep_ratio < 1:
            order = state.score[0].argsort(descending=True)
            kept[order[int(len(kept) * block.keep_ratio) :]] = False
        found.kept[place] = kept.view(size)
        found.scores[place] = output[1].score[0].float().view(size)

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
    attn: GlobalMHRA, x: Tensor, token: tuple[int, ...], window_size: int | None
) -> Tensor:
    """Return the attention of one token to each, a map like ``x``, mean over heads.

    ``x`` is the input of ``attn``, ``(1, h, w, C)`` or ``(1, t, h, w, C)``, and ``token`` a place
    in it: row and column, of clips frame before them. Outside the token's window the map is NaN.
    """
    size = x.shape[1:-1]
    if window_size is None:
        windows, window, index = x.flatten(1, -2), 0, int(np.ravel_multi_index(token, size))
    else:
        (row, column), (h, w) = token, size
        windows = partition(x, window_size)
        window = row // window_size * count_windows(w, window_size) + column // window_size
        index = row % window_size * window_size + column % window_size
    q, k, _ = attn.heads(windows[window : window + 1])
    weights = attention_weights(q[:, :, index : index + 1], k)[0, :, 0].mean(0)
    if window_size is None:
        return weights.view(size)
    everywhere = weights.new_full((*windows.shape[:2], 1), torch.nan)
    everywhere[window, :, 0] = weights
    return reverse(everywhere, window_size, h, w)[0, ..., 0]
