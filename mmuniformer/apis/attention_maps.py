"""What a backbone attends to, recorded by hooks while it runs, in any layout.

One image at a time. Maps are ``(h, w)`` in tokens of their stage.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from mmuniformer.models.arch import ATTENTION_STAGES
from mmuniformer.models.base import StagedBackbone
from mmuniformer.models.blocks import GlobalBlock
from mmuniformer.models.hourglass import HourglassBlock, TokenState
from mmuniformer.models.mhra import GlobalMHRA, attention_weights, partition

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
    features: list[Tensor] = field(default_factory=list)
    """Each stage's map ``(C, h, w)``, before its output norm."""


def record(
    backbone: StagedBackbone, image: Tensor, query: tuple[float, float] = (0.5, 0.5)
) -> Record:
    """Run a backbone on one image and record what it attends to.

    Args:
        backbone: In eval mode.
        image: ``(1, C, H, W)``, normalized.
        query: Place of the query token: x and y in [0, 1), as shares of width and height.
    """
    found = Record()
    with ExitStack() as hooks, torch.no_grad():
        for stage in range(backbone.num_stages):
            blocks = backbone.blocks(stage)
            keep = partial(keep_features, found)
            hooks.enter_context(blocks[-1].register_forward_hook(keep))
            for index, block in enumerate(blocks if stage in ATTENTION_STAGES else ()):
                place = (stage + 1, index + 1)
                if isinstance(block, HourglassBlock):
                    keep = partial(keep_tokens, found, place)
                    hooks.enter_context(block.register_forward_hook(keep))
                else:
                    keep = partial(keep_attention, found, place, query)
                    hooks.enter_context(block.register_forward_pre_hook(keep))
        backbone(image)
    return found


def keep_features(
    found: Record, block: nn.Module, inputs: tuple, output: Tensor | tuple[Tensor, TokenState]
) -> None:
    """Record the map that a stage's last block returns."""
    x = output if isinstance(output, Tensor) else output[0]
    found.features.append(x[0].float())


def keep_attention(
    found: Record, place: Place, query: tuple[float, float], block: GlobalBlock, inputs: tuple
) -> None:
    """Record the attention of the query token in a block that is about to run."""
    x, window_size = (*inputs, None)[:2]
    h, w = x.shape[2:]
    tokens = block.norm1(block.pos_embed(x).permute(0, 2, 3, 1))
    token = int(query[1] * h), int(query[0] * w)
    found.attention[place] = attention_of(block.attn, tokens, token, window_size)


def attention_of(
    attn: GlobalMHRA, x: Tensor, token: tuple[int, int], window_size: int | None
) -> Tensor:
    """Return the attention of one token to each, as a map ``(h, w)``, mean over heads.

    Args:
        attn: The attention.
        x: Its input, ``(1, h, w, C)``.
        token: Row and column of the token.
        window_size: Window side in tokens, None for global attention. Outside the token's window
            the map is NaN. Padding takes part and is cropped, so that the sum can be below 1.
    """
    h, w = x.shape[1:3]
    if window_size is None:
        return sequence_attention(attn, x.flatten(1, 2), token[0] * w + token[1]).view(h, w)
    (row, y), (column, x_inside) = (divmod(index, window_size) for index in token)
    number = row * -(-w // window_size) + column
    window = partition(x, window_size)[number : number + 1]
    weights = sequence_attention(attn, window, y * window_size + x_inside).view(
        window_size, window_size
    )
    top, left = row * window_size, column * window_size
    result = weights.new_full((h, w), torch.nan)
    inside = result[top : top + window_size, left : left + window_size]
    inside.copy_(weights[: inside.shape[0], : inside.shape[1]])
    return result


def sequence_attention(attn: GlobalMHRA, tokens: Tensor, index: int) -> Tensor:
    """Return the attention of token ``index`` to each of a sequence ``(1, N, C)``: ``(N,)``."""
    q, k, _ = attn.heads(tokens)
    return attention_weights(q[:, :, index : index + 1], k)[0, :, 0].mean(0)


def keep_tokens(
    found: Record,
    place: Place,
    block: HourglassBlock,
    inputs: tuple[Tensor, TokenState],
    output: tuple[Tensor, TokenState],
) -> None:
    """Record which patches an hourglass block kept, and the score that it left."""
    x, state = inputs
    h, w = x.shape[2:]
    kept = torch.ones(h * w, dtype=torch.bool, device=x.device)
    if block.keep_ratio < 1:
        order = state.score[0].argsort(descending=True)
        kept[order[int(h * w * block.keep_ratio) :]] = False
    found.kept[place] = kept.view(h, w)
    found.scores[place] = output[1].score[0].float().view(h, w)


def principal_colors(features: Tensor) -> Tensor:
    """Return a map ``(C, h, w)`` as colors ``(h, w, 3)`` in [0, 1].

    Red, green and blue are the first three principal components over the positions; each is spread
    over its range without the outermost 1%, and its sign is that of its largest channel.
    """
    channels, h, w = features.shape
    tokens = features.flatten(1).T.double()
    tokens = tokens - tokens.mean(0)
    axes = torch.linalg.eigh(tokens.T @ tokens).eigenvectors[:, -3:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    values = tokens @ axes
    low, high = values.quantile(torch.tensor([0.01, 0.99]).to(values), dim=0)
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).view(h, w, 3).float()
