"""UniFormer for clips: the networks for images with a time axis, for video classification.

UniFormer, ICLR 2022 (arXiv 2201.04676), section 3: tokens relate in space and time jointly. The
blocks are those of images with ``dims=3``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmuniformer.models.arch import ATTENTION_STAGES, NUM_STAGES
from mmuniformer.models.base import StagedBackbone, check_switches
from mmuniformer.models.blocks import SplitBlock
from mmuniformer.models.uniformer import UniFormer
from mmuniformer.models.uniformer_light import UniFormerLight
from mmuniformer.registry import MODELS

TIME_STRIDES = (2, 1, 1, 1)
"""Strides of the patch embeddings along time."""


class ClipBackbone(StagedBackbone):
    """What makes a backbone for images one for clips ``(B, in_channels, T, H, W)``.

    Every second frame is embedded with its neighbors. One output is returned bare, as the heads of
    mmaction2 take it; several in a tuple.
    """

    dims = 3

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
        time_kernels: Sequence[int] = (3, 1, 1, 1),
        layer_norm_eps: float = 1e-6,
        out_indices: Sequence[int] = (3,),
        out_norm: str = 'BN',
        **kwargs: Any,
    ):
        self.time_kernels = check_time_kernels(time_kernels)
        self.layer_norm_eps = layer_norm_eps
        super().__init__(arch, out_indices=out_indices, out_norm=out_norm, **kwargs)

    def make_stem(self, stage: int) -> nn.Module:
        """Build the patch embedding that leads to a stage."""
        time = (self.time_kernels[stage], TIME_STRIDES[stage])
        return super().make_stem(stage, time=time)

    def block_args(self, stage: int, block: int) -> dict[str, Any]:
        """Return the arguments that all kinds of blocks of a stage have."""
        eps = {'eps': self.layer_norm_eps} if stage in ATTENTION_STAGES else {}
        return super().block_args(stage, block) | eps

    def outputs(self, maps: tuple[Tensor, ...], state: Any) -> Tensor | tuple[Tensor, ...]:
        """Return one output bare."""
        outs = super().outputs(maps, state)
        return outs[0] if len(outs) == 1 else outs


@MODELS.register_module()
class UniFormer3D(ClipBackbone, UniFormer):
    """UniFormer backbone for clips.

    Args:
        arch: Preset (nano, small, base) or a mapping, as ``UniFormer`` takes.
        split: Attend along time and within each frame, one after the other, in stages 3 and 4:
            cheaper than attention in space and time at once, and less accurate.
        time_kernels: Frames that the patch embedding of each stage sees, odd numbers.
        layer_norm_eps: Epsilon of the blocks' LayerNorms. Weights hosted by mmaction2 run there
            with 1e-5; the authors', and ours, with 1e-6.
        out_indices: As ``UniFormer``'s; the last stage by default.
        out_norm: As ``UniFormer``'s; 'BN' by default.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` takes weights for clips or
            images. The latter are inflated: repeated along time and divided by the kernel's
            frames, or with ``inflation='center'`` put in its middle.

    All other arguments are those of ``UniFormer``, but for windows and ``mix_token``.

    Raises:
        ValueError: An argument's value is not one that the network can have; says which and why.

    Example:
        >>> import torch
        >>> UniFormer3D('nano')(torch.rand(1, 3, 8, 64, 96)).shape
        torch.Size([1, 128, 4, 2, 3])
    """

    def __init__(
        self, arch: str | Mapping[str, Any] = 'small', *, split: bool = False, **kwargs: Any
    ):
        check_switches(split=split)
        self.split = split
        super().__init__(arch, **kwargs)
        if self.mix_token:
            raise ValueError('mix_token=True is for images: leave it out')
        if split:
            start_split(self)

    def set_stage3_attn(
        self, stage3_attn: str | Sequence[str], window_size: int | None = None
    ) -> None:
        """Refuse windows, which have no time axis."""
        if stage3_attn != 'global':
            raise ValueError(
                f"stage3_attn={stage3_attn!r} is for images: clips have 'global', or split=True"
            )
        super().set_stage3_attn(stage3_attn, window_size)

    def make_block(self, stage: int, block: int) -> nn.Module:
        """Build one block; stages and blocks count from 0."""
        if not self.split or stage not in ATTENTION_STAGES:
            return super().make_block(stage, block)
        args = self.block_args(stage, block) | self.attention_args
        return SplitBlock(self.embed_dims[stage], self.head_dim, **args)


@MODELS.register_module()
class UniFormerLight3D(ClipBackbone, UniFormerLight):
    """Light UniFormer for clips: the hourglass keeps a share of all patches of a clip.

    The arguments are those of ``UniFormerLight``, with ``time_kernels``, ``layer_norm_eps``,
    ``out_indices`` and ``out_norm`` of ``UniFormer3D``. The released networks with LayerScale have
    ``layer_scale_init_value=0.1``.

    Example:
        >>> import torch
        >>> UniFormerLight3D('nano')(torch.rand(1, 3, 8, 64, 96)).shape
        torch.Size([1, 128, 4, 2, 3])
    """

    def __init__(self, arch: str | Mapping[str, Any] = 'xs', **kwargs: Any):
        super().__init__(arch, **kwargs)


def start_split(model: UniFormer3D) -> None:
    """Initialize attention along time so that it starts as nothing, as the authors do."""
    for module in model.modules():
        if isinstance(module, SplitBlock):
            nn.init.zeros_(module.t_attn.qkv.weight)
            nn.init.ones_(module.t_attn.proj.weight)


def check_time_kernels(time_kernels: Sequence[int]) -> tuple[int, ...]:
    """Refuse anything but an odd number of frames a stage."""
    kernels = tuple(time_kernels) if isinstance(time_kernels, Sequence) else ()
    if len(kernels) != NUM_STAGES or not all(isinstance(k, int) and k % 2 for k in kernels):
        raise ValueError(f'time_kernels={time_kernels!r} should be {NUM_STAGES} odd numbers')
    return kernels
