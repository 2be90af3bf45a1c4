"""UniFormerLight: UniFormer with hourglass blocks in stages 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmuniformer.models.arch import ATTENTION_STAGES, UNIFORMER_LIGHT
from mmuniformer.models.base import StagedBackbone, check_rates
from mmuniformer.models.hourglass import HourglassBlock, TokenState, pool_score
from mmuniformer.registry import MODELS


@MODELS.register_module()
class UniFormerLight(StagedBackbone):
    """Light UniFormer (xs, xxs): attention among the patches that a class token looks at.

    Li et al., TPAMI 2023 (arXiv 2201.09450), section 3.5. A class token scores the patches from
    stage 3 on; each hourglass block attends among the best of them and one token that stands for
    the others. The outputs are maps of all patches.

    Args:
        arch: Preset (nano, xs, xxs) or a mapping with at least ``embed_dims``, ``depths`` and
            ``keep_ratios``. ``keep_ratios`` and ``trade_offs`` override its fields too.
        keep_ratios: For stages 3 and 4, the share of patches that each block attends among,
            in (0, 1]; the first is 1.
        trade_offs: For stages 3 and 4, the weight of each block's new score, in [0, 1].
        out_cls_token: Return the class token ``(B, C)`` after the maps: for ``LightClsHead``.
        cls_token_std: Standard deviation that the class token starts with; the classifiers were
            trained from 0.

    All other arguments are those of ``UniFormer``; it has no ``stage3_attn``, because shrinking
    already bounds the cost.

    Raises:
        ValueError: An argument's value is not one that the network can have; says which and why.

    Example:
        >>> import torch
        >>> [tuple(out.shape) for out in UniFormerLight('nano')(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6), (1, 128, 2, 3)]
    """

    presets = UNIFORMER_LIGHT
    hourglass = True

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'xs',
        *,
        keep_ratios: Sequence[Sequence[float]] | None = None,
        trade_offs: Sequence[Sequence[float]] | None = None,
        out_cls_token: bool = False,
        cls_token_std: float = 0.02,
        **kwargs: Any,
    ):
        super().__init__(arch, keep_ratios=keep_ratios, trade_offs=trade_offs, **kwargs)
        check_rates(cls_token_std=cls_token_std)
        self.out_cls_token = out_cls_token
        third, fourth = (self.embed_dims[stage] for stage in ATTENTION_STAGES)
        if self.num_stages > 2:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, third))
            if cls_token_std:
                nn.init.trunc_normal_(self.cls_token, std=cls_token_std)
        if self.num_stages > 3:
            self.cls_upsample = nn.Linear(third, fourth)
            nn.init.trunc_normal_(self.cls_upsample.weight, std=0.02)
            nn.init.zeros_(self.cls_upsample.bias)

    def make_block(self, stage: int, block: int) -> nn.Module:
        """Build one block; stages and blocks count from 0."""
        if stage not in ATTENTION_STAGES:
            return super().make_block(stage, block)
        hourglass = ATTENTION_STAGES.index(stage)
        return HourglassBlock(
            self.embed_dims[stage],
            self.head_dim,
            keep_ratio=self.arch.keep_ratios[hourglass][block],
            trade_off=self.arch.trade_offs[hourglass][block],
            **self.block_args(stage, block) | self.attention_args,
        )

    def forward_stage(
        self, stage: int, x: Tensor, state: TokenState | None
    ) -> tuple[Tensor, TokenState | None]:
        """Run the blocks of a stage; hourglass blocks hand the tokens' state on."""
        if stage not in ATTENTION_STAGES:
            return super().forward_stage(stage, x, state)
        state = self.enter_stage(x, state)
        for block in self.blocks(stage):
            x, state = block(x, state)
        if stage + 1 < self.num_stages:
            state = state._replace(score=pool_score(state.score, *x.shape[-2:]))
        return x, state

    def enter_stage(self, x: Tensor, state: TokenState | None) -> TokenState:
        """Return the class token at the width of the stage, and the score so far."""
        if state is None:
            return TokenState(self.cls_token.expand(x.shape[0], -1, -1), None)
        return state._replace(cls_token=self.cls_upsample(state.cls_token))

    def outputs(self, maps: tuple[Tensor, ...], state: TokenState | None) -> tuple[Tensor, ...]:
        """Return the maps and, if asked for, the class token."""
        return (*maps, state.cls_token.squeeze(1)) if self.out_cls_token else maps
