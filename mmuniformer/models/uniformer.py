"""UniFormer: convolutional relations in shallow stages, attention in deep ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmuniformer.models.arch import ATTENTION_STAGES, STRIDES, TOTAL_STRIDE, UNIFORMER
from mmuniformer.models.base import StagedBackbone, check_positive, check_switches
from mmuniformer.models.blocks import GlobalBlock
from mmuniformer.models.mix_token import TokenBox, mix_images, random_box
from mmuniformer.registry import MODELS

STAGE3_LAYOUTS = ('global', 'window', 'hybrid', 'auto')
HYBRID_PERIOD = 4
"""In a hybrid stage 3 every fourth block is global."""


@MODELS.register_module()
class UniFormer(StagedBackbone):
    """UniFormer backbone for dense prediction.

    Li et al., ICLR 2022 (arXiv 2201.04676) and TPAMI 2023 (arXiv 2201.09450, section 4 on dense
    prediction). State-dict names are those of the released weights, and one set of weights serves
    every ``stage3_attn``.

    Args:
        arch: Preset (nano, small, small_plus, base, base_ls, large) or a mapping with at least
            ``embed_dims`` and ``depths``. The next six arguments override its fields.
        embed_dims: Channels of each stage.
        depths: Blocks of each stage.
        head_dim: Channels of an attention head. No tensor's shape shows it: token-labeled weights
            need 32 and are ruined by 64.
        mlp_ratios: Width of the FFN's hidden layer over its input's, one number or one a stage.
        conv_stem: Overlapping 3x3 convolutions as patch embedding, one flag or one a stage.
        layer_scale_init_value: LayerScale's initial value, one number or one a stage; 0 for none.
        in_channels: Channels of the image.
        qkv_bias: Whether q, k and v have a bias.
        drop_rate: Dropout after projections and in FFNs, in [0, 1).
        attn_drop_rate: Dropout on attention weights, in [0, 1).
        drop_path_rate: Stochastic depth of the last block, in [0, 1); rises linearly from 0.
        stage3_attn: Attention of stage 3: 'global', 'window', 'hybrid' (every fourth block
            global), one of 'global' / 'window' for each block, or 'auto': global up to
            ``token_budget`` tokens, hybrid above.
        window_size: Window side in stage-3 tokens (16 pixels each).
        token_budget: Stage-3 tokens of an image up to which 'auto' stays global.
        mix_token: In training, give each image a box of the tokens of another one after the stem
            (MixToken), and return the box after the maps: for ``TokenLabelHead``.
        out_indices: Stages to return, increasing, from 0.
        out_norm: 'LN' gives each output a LayerNorm, for dense prediction. 'BN' gives the last
            stage the BatchNorm that classifiers were released with, and other outputs none.
        frozen_stages: -1 for none, 0 for the stem, else the number of stages to freeze.
        norm_eval: Keep BatchNorm on its running statistics in training.
        with_cp: What training recomputes in backward instead of keeping it: 'parts' (norms, GELU,
            the FFNs of stages 1 and 2: little time, much memory), True (all blocks as a whole),
            False (nothing), or the first n blocks of each stage as a whole and else parts.
        fused_attn: Attention without the matrix of weights in memory; False for the plain form.
        channels_last: Run in channels-last memory layout, which is faster; outputs are contiguous
            either way.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_ADDRESS, head_dim=N)`` loads released
            weights; ``head_dim`` states what the file was trained with, where its name does not
            tell.

    Raises:
        ValueError: An argument's value is not one that the network can have; says which and why.

    Example:
        >>> import torch
        >>> model = UniFormer('nano', stage3_attn='hybrid', window_size=7)
        >>> [tuple(out.shape) for out in model(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 32, 8, 12), (1, 64, 4, 6), (1, 128, 2, 3)]
    """

    presets = UNIFORMER
    windowed_stages = ATTENTION_STAGES[:1]

    def __init__(
        self,
        arch: str | Mapping[str, Any] = 'small',
        *,
        stage3_attn: str | Sequence[str] = 'global',
        window_size: int = 14,
        token_budget: int = 4096,
        mix_token: bool = False,
        **kwargs: Any,
    ):
        super().__init__(arch, **kwargs)
        check_switches(mix_token=mix_token)
        self.mix_token = mix_token
        self.token_budget = check_positive('token_budget', token_budget)
        self.set_stage3_attn(stage3_attn, window_size)

    def make_block(self, stage: int, block: int) -> nn.Module:
        """Build one block; stages and blocks count from 0."""
        if stage not in ATTENTION_STAGES:
            return super().make_block(stage, block)
        args = self.block_args(stage, block) | self.attention_args
        return GlobalBlock(self.embed_dims[stage], self.head_dim, **args)

    def set_stage3_attn(
        self, stage3_attn: str | Sequence[str], window_size: int | None = None
    ) -> None:
        """Switch the attention of stage 3 of a built model; weights stay as they are.

        ``window_size`` is in stage-3 tokens; None keeps the present one.

        Raises:
            ValueError: The layout is unknown, has the wrong length, or the window is not positive.
        """
        if window_size is not None:
            self.window_size = check_positive('window_size', window_size)
        depth = self.depths[2]
        if isinstance(stage3_attn, str):
            if stage3_attn not in STAGE3_LAYOUTS:
                raise ValueError(
                    f'stage3_attn={stage3_attn!r} is unknown: choose one of '
                    f'{", ".join(STAGE3_LAYOUTS)}, or give one of global, window for each block'
                )
        else:
            each = tuple(stage3_attn) if isinstance(stage3_attn, Sequence) else ()
            if len(each) != depth or any(entry not in ('global', 'window') for entry in each):
                raise ValueError(
                    f'stage3_attn={stage3_attn!r} should have {depth} entries, one a block of '
                    "stage 3, each 'global' or 'window'"
                )
            stage3_attn = each
        self.stage3_attn = stage3_attn

    def window_sizes(self, tokens: int) -> tuple[int | None, ...]:
        """Return the window size of each block of stage 3 (None: global) for a count of tokens."""
        layout = self.stage3_attn
        if layout == 'auto':
            layout = 'global' if tokens <= self.token_budget else 'hybrid'
        if layout == 'hybrid':
            layout = [
                'window' if (block + 1) % HYBRID_PERIOD else 'global'
                for block in range(self.depths[2])
            ]
        elif isinstance(layout, str):
            layout = [layout] * self.depths[2]
        return tuple(self.window_size if kind == 'window' else None for kind in layout)

    def forward_stage(
        self, stage: int, x: Tensor, state: TokenBox | None
    ) -> tuple[Tensor, TokenBox | None]:
        """Run the blocks of a stage, those of stage 3 in their windows."""
        if stage == 0 and self.mix_token and self.training:
            state = random_box(*x.shape[2:])
            x = mix_images(x, state)
        if stage != ATTENTION_STAGES[0]:
            return super().forward_stage(stage, x, state)
        sizes = self.window_sizes(math.prod(x.shape[2:]))
        for block, window_size in zip(self.blocks(stage), sizes, strict=True):
            x = block(x, window_size)
        return x, state

    def outputs(self, maps: tuple[Tensor, ...], state: TokenBox | None) -> tuple[Any, ...]:
        """Return the maps and, where tokens were mixed, their box on the grid of stage 4."""
        return maps if state is None else (*maps, state.shrink(TOTAL_STRIDE // STRIDES[0]))
