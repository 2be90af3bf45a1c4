"""The hourglass block: shrink the tokens to the informative ones, attend, recover the grid.

UniFormer's TPAMI extension, section 3.5. ``B`` images, ``N`` patch tokens, ``C`` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmuniformer.models.blocks import AttentionBlock, layer_scale, map_of, scaled, tokens_of
from mmuniformer.models.mhra import attention_weights

Relate = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


class TokenState(NamedTuple):
    """What hourglass blocks pass on besides the patch map."""

    cls_token: Tensor
    """Class token, ``(B, 1, C)``."""
    score: Tensor | None
    """How much the class token attended to each patch so far, ``(B, N)``; None at first."""


class HourglassBlock(AttentionBlock):
    """Attention among the class token, the best patches and a representative of the others.

    LayerScale of the representative's branches is one factor, ``gamma_3``, for images, and the
    factors of the two branches for clips, as released.

    ``keep_ratio`` of the patches, in (0, 1], take part; ``trade_off`` in [0, 1] is the weight of
    the new score in the running one. All other arguments are those of ``AttentionBlock``.
    """

    def __init__(
        self,
        dim: int,
        *args,
        keep_ratio: float,
        trade_off: float,
        layer_scale_init_value: float = 0.0,
        dims: int = 2,
        **kwargs,
    ):
        super().__init__(
            dim, *args, layer_scale_init_value=layer_scale_init_value, dims=dims, **kwargs
        )
        self.keep_ratio = keep_ratio
        self.trade_off = trade_off
        has_factors = keep_ratio < 1 and dims == 2
        self.gamma_3 = layer_scale(layer_scale_init_value if has_factors else 0.0, (dim,))

    def plain(
        self, x: Tensor, state: TokenState, relate: Relate | None = None
    ) -> tuple[Tensor, TokenState]:
        """Run the block on a map ``(B, C, H, W)`` and the tokens' state.

        ``relate`` takes the place of the method of that name where a policy runs it.
        """
        tokens = tokens_of(self.pos_embed(x))
        update = self.update_all if self.keep_ratio == 1 else self.update_best
        patches, state = update(tokens.flatten(1, -2), state, relate or self.relate)
        return map_of(patches.unflatten(1, tokens.shape[1:-1])), state

    def update_all(
        self, patches: Tensor, state: TokenState, relate: Relate
    ) -> tuple[Tensor, TokenState]:
        """Let all patches, ``(B, N, C)``, take part."""
        tokens, row, _ = relate(torch.cat([state.cls_token, patches], 1))
        score = row[:, 1:]
        if state.score is not None:
            score = self.blend(state.score, score)
        return tokens[:, 1:], TokenState(tokens[:, :1], score)

    def update_best(
        self, patches: Tensor, state: TokenState, relate: Relate
    ) -> tuple[Tensor, TokenState]:
        """Let the best patches take part; the others follow their representative."""
        count = torch.sym_int(patches.shape[1] * self.keep_ratio)
        # Positions are integers: half precision could not hold large ones exactly.
        order = state.score.detach().argsort(dim=1, descending=True)
        kept, dropped = gather_tokens(patches, order).split([count, patches.shape[1] - count], 1)
        kept_score, dropped_score = state.score.gather(1, order).split([count, dropped.shape[1]], 1)
        weights = dropped_score / dropped_score.sum(1, keepdim=True)
        representative = weights.to(dropped.dtype).unsqueeze(1) @ dropped

        tokens = torch.cat([state.cls_token, kept, representative.to(kept.dtype)], 1)
        tokens, row, update = relate(tokens)
        dropped = dropped + update
        score = torch.cat([self.blend(kept_score, row[:, 1:-1]), dropped_score], 1)

        inverse = order.argsort(dim=1)
        patches = gather_tokens(torch.cat([tokens[:, 1:-1], dropped], 1), inverse)
        return patches, TokenState(tokens[:, :1], score.gather(1, inverse))

    def relate(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run MHRA and FFN on ``(B, M, C)``.

        Returns the new tokens, the class token's attention row ``(B, M)``, a mean over heads, and
        what the dropped tokens add, ``(B, 1, C)``.
        """
        q, k, v = self.attn.heads(self.norm1(tokens))
        row, attended = cls_row(q, k), self.attn.attend((q, k, v), tokens.shape[1:-1])
        tokens = tokens + self.drop_path(scaled(self.gamma_1, attended))
        transformed = self.mlp(self.norm2(tokens))
        tokens = tokens + self.drop_path(scaled(self.gamma_2, transformed))
        return tokens, row, self.fast_update(attended, transformed)

    def fast_update(self, attended: Tensor, transformed: Tensor) -> Tensor:
        """Sum both branches of the representative, the last token, without drop path."""
        attended, transformed = attended[:, -1:], transformed[:, -1:]
        if self.gamma_3 is not None:
            return self.gamma_3 * (attended + transformed)
        return scaled(self.gamma_1, attended) + scaled(self.gamma_2, transformed)

    def blend(self, old: Tensor, new: Tensor) -> Tensor:
        """Mix a new score into the running one."""
        return (1 - self.trade_off) * old + self.trade_off * new


def cls_row(q: Tensor, k: Tensor) -> Tensor:
    """Return how much the class token, the first of ``M``, attends to each: ``(B, M)``."""
    # The row alone: fused attention never has the matrix.
    return attention_weights(q[:, :, :1], k).mean(1).squeeze(1)


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Gather tokens ``(B, N, C)`` by an index ``(B, M)``: ``(B, M, C)``."""
    # Whole rows of all images at once: a gather would look up each channel.
    first = torch.arange(tokens.shape[0], device=index.device).unsqueeze(1) * tokens.shape[1]
    rows = tokens.flatten(0, 1).index_select(0, (first + index).flatten())
    return rows.view(*index.shape, tokens.shape[-1])


def pool_score(score: Tensor, height: int, width: int) -> Tensor:
    """Pool a score ``(B, T * height * width)`` to grids of half the sides, keeping the sums."""
    pooled = F.avg_pool2d(score.unflatten(1, (-1, height, width)), 2).flatten(1)
    return pooled * (score.sum(1, keepdim=True) / pooled.sum(1, keepdim=True))
