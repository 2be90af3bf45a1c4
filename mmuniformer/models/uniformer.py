"""UniFormer: convolutional relations in shallow stages, attention in deep ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mmuniformer.models.arch import ATTENTION_STAGES, UNIFORMER, resolve_arch
from mmuniformer.models.base import StagedBackbone, check_positive, check_rates
from mmuniformer.models.blocks import GlobalBlock
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
        head_dim: Channels of an attention head. No tensor's shape shows it: token-labelled weights
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
        out_indices: Stages to return, increasing, from 0.
        frozen_stages: -1 for none, 0 for the stem, else the number of stages to freeze.
        norm_eval: Keep BatchNorm on its running statistics in training.
        with_cp: What training recomputes in backward instead of keeping it: 'parts' (norms, GELU,
            the FFNs of stages 1 and 2: little time, much memory), True (all blocks as a whole),
            False (nothing), or the first n blocks of each stage as a whole and else parts.
        fused_attn: Attention without the matrix of weights in memory; False for the plain form.
        channels_last: Run in channels-last memory layout, which is faster; outputs are contiguous
            either way.
        compiled: Run through ``torch.compile``: once for the first image size, then for sizes
            that change, at most as often as ``torch._dynamo.config.recompile_limit`` says; sizes
            beyond that run as they are. The rest of a detector is not compiled.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL, head_dim=N)`` loads released
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

    windowed_stages = ATTENTION_STAGES[:1]

    def __init__(
        self,
        arch: str | dict[str, Any] = 'small',
        embed_dims: Sequence[int] | None = None,
        depths: Sequence[int] | None = None,
        head_dim: int | None = None,
        mlp_ratios: float | Sequence[float] | None = None,
        conv_stem: bool | Sequence[bool] | None = None,
        layer_scale_init_value: float | Sequence[float] | None = None,
        in_channels: int = 3,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        stage3_attn: str | Sequence[str] = 'global',
        window_size: int = 14,
        token_budget: int = 4096,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | str | Sequence[int] = 'parts',
        fused_attn: bool = True,
        channels_last: bool = True,
        compiled: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ):
        check_rates(attn_drop_rate=attn_drop_rate)
        self.attention_args = {
            'qkv_bias': qkv_bias, 'attn_drop': attn_drop_rate, 'fused': fused_attn,
        }  # fmt: skip
        resolved = resolve_arch(
            arch, UNIFORMER, embed_dims=embed_dims, depths=depths, head_dim=head_dim,
            mlp_ratios=mlp_ratios, conv_stem=conv_stem,
            layer_scale_init_value=layer_scale_init_value,
        )  # fmt: skip
        super().__init__(
            resolved, in_channels, drop_rate, drop_path_rate, out_indices, frozen_stages,
            norm_eval, with_cp, channels_last, compiled, init_cfg,
        )  # fmt: skip
        self.token_budget = check_positive('token_budget', token_budget)
        self.set_stage3_attn(stage3_attn, window_size)

    def make_block(self, stage: int, block: int) -> nn.Module:
        """Build one block; stages and blocks count from 0."""
        if stage not in ATTENTION_STAGES:
            return super().make_block(stage, block)
        return GlobalBlock(
            self.arch.embed_dims[stage],
            self.arch.head_dim,
            self.arch.mlp_ratios[stage],
            drop=self.drop_rate,
            drop_path=self.drop_path_rates[stage][block],
            layer_scale_init_value=self.arch.layer_scale_init_value[stage],
            **self.attention_args,
        )

    def set_stage3_attn(
        self, stage3_attn: str | Sequence[str], window_size: int | None = None
    ) -> None:
        """Switch the attention of stage 3 of a built model; weights stay as they are.

        Args:
            stage3_attn: As the constructor's.
            window_size: Window side in stage-3 tokens; None keeps the present one.

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
            stage3_attn = tuple(stage3_attn)
            if len(stage3_attn) != depth or not set(stage3_attn) <= {'global', 'window'}:
                raise ValueError(
                    f'stage3_attn={stage3_attn!r} should have {depth} entries, one a block of '
                    "stage 3, each 'global' or 'window'"
                )
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

    def forward_stage(self, stage: int, x: Tensor, state: None) -> tuple[Tensor, None]:
        """Run the blocks of a stage, those of stage 3 in their windows."""
        if stage != ATTENTION_STAGES[0]:
            return super().forward_stage(stage, x, state)
        sizes = self.window_sizes(x.shape[2] * x.shape[3])
        for index, block in enumerate(self.blocks(stage)):
            x = self.run_block(stage, index, block, x, sizes[index])
        return x, state
