"""What all backbones share: stages, output norms, freezing, policies, weights."""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmuniformer.errors import InputError
from mmuniformer.models.arch import (
    HOURGLASS_FIELDS,
    NUM_STAGES,
    STRIDES,
    TOTAL_STRIDE,
    Arch,
    resolve_arch,
)
from mmuniformer.models.blocks import LocalBlock
from mmuniformer.models.execution import set_policies
from mmuniformer.models.execution.folding import fold
from mmuniformer.models.execution.packing import pack
from mmuniformer.models.layers import LAYERS, ConvEmbed, MapLayerNorm, PatchEmbed
from mmuniformer.models.weights.load import check_state_dict, load_pretrained, split_init_cfg


class StagedBackbone(BaseModule):
    """Four stages of blocks over patch embeddings, with a norm on each output.

    Only the stages up to the last of ``out_indices`` and only the output norms in it are built, so
    that every parameter takes part in the outputs. The arguments are those of ``UniFormer``.
    """

    presets: Mapping[str, Arch]
    """Networks by the name that ``arch`` takes."""
    dims = 2
    """Axes of a map besides batch and channels: 2 for images, 3 for clips."""
    hourglass = False
    """Whether ``arch`` has keep ratios and trade-offs, and the constructor takes them."""
    windowed_stages: tuple[int, ...] = ()
    """Stages, from 0, whose attention may pad windows."""
    deployed: Tensor | None
    """None until ``switch_to_deploy``, then a true tensor that state dicts carry."""

    def __init_subclass__(cls, **kwargs: Any):
        """Show the shared arguments in the signature, hence in ``help()``, of a subclass."""
        super().__init_subclass__(**kwargs)
        own = inspect.signature(cls.__init__)
        merged = dict(own.parameters)
        for parent in cls.__mro__[1 : cls.__mro__.index(StagedBackbone) + 1]:
            merged |= {
                name: parameter
                for name, parameter in inspect.signature(parent.__init__).parameters.items()
                if name not in merged
            }
        named = [p for p in merged.values() if p.kind is not p.VAR_KEYWORD]
        cls.__init__.__signature__ = own.replace(parameters=named)

    def __init__(
        self,
        arch: str | Mapping[str, Any],
        *,
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
        out_indices: Sequence[int] = (0, 1, 2, 3),
        out_norm: str = 'LN',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool | str | Sequence[int] = 'parts',
        fused_attn: bool = True,
        channels_last: bool = True,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **fields: Any,
    ):
        self.check_names(fields)
        super().__init__(init_cfg=init_cfg)
        check_rates(
            drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate
        )
        check_switches(
            qkv_bias=qkv_bias, norm_eval=norm_eval, fused_attn=fused_attn,
            channels_last=channels_last,
        )  # fmt: skip
        self.arch = arch = resolve_arch(
            arch, self.presets, self.hourglass, embed_dims=embed_dims, depths=depths,
            head_dim=head_dim, mlp_ratios=mlp_ratios, conv_stem=conv_stem,
            layer_scale_init_value=layer_scale_init_value, **fields,
        )  # fmt: skip
        self.embed_dims = arch.embed_dims
        self.depths = arch.depths
        self.head_dim = arch.head_dim
        self.in_channels = check_positive('in_channels', in_channels)
        self.out_indices = check_out_indices(out_indices)
        self.out_norm = check_out_norm(out_norm, self.out_indices)
        self.num_stages = self.out_indices[-1] + 1
        self.frozen_stages = check_frozen_stages(frozen_stages)
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.channels_last = channels_last
        self.drop_rate = drop_rate
        self.attention_args = {'qkv_bias': qkv_bias, 'attn_drop': attn_drop_rate}
        self.drop_path_rates = stagewise(
            torch.linspace(0, drop_path_rate, sum(arch.depths), device='cpu').tolist(), arch.depths
        )
        recomputed = check_with_cp(with_cp, arch.depths)
        for stage in range(self.num_stages):
            self.add_module(f'patch_embed{stage + 1}', self.make_stem(stage))
            blocks = (self.make_block(stage, block) for block in range(arch.depths[stage]))
            self.add_module(f'blocks{stage + 1}', nn.ModuleList(blocks))
            for index, block in enumerate(self.blocks(stage)):
                set_policies(block, fused_attn, recomputed[stage][index])
        if out_norm == 'BN':
            self.norm = LAYERS[self.dims].batch_norm(arch.embed_dims[-1])
        for stage in self.out_indices if out_norm == 'LN' else ():
            norm = MapLayerNorm(arch.embed_dims[stage], eps=1e-6)
            self.add_module(f'norm{stage + 1}', norm)
        self.register_buffer('deployed', None)
        self.apply(reset_parameters)
        if channels_last:
            self.apply(lay_out_as_gradients)
        self.freeze()

    def check_names(self, fields: Mapping[str, Any]) -> None:
        """Refuse arguments that the constructor does not have, and name the closest one."""
        for name in fields:
            if not (self.hourglass and name in HOURGLASS_FIELDS):
                known = list(inspect.signature(type(self)).parameters)
                close = difflib.get_close_matches(name, known, 1)
                hint = f'did you mean {close[0]!r}?' if close else f'it has {", ".join(known)}'
                raise TypeError(f'{type(self).__name__} has no argument {name!r}: {hint}')

    def make_stem(self, stage: int, time: tuple[int, int] | None = None) -> nn.Module:
        """Build the patch embedding that leads to a stage, for clips with a kernel of time."""
        before = self.embed_dims[stage - 1] if stage else self.in_channels
        embed = ConvEmbed if self.arch.conv_stem[stage] else PatchEmbed
        return embed(before, self.embed_dims[stage], STRIDES[stage], time)

    def make_block(self, stage: int, block: int) -> nn.Module:
        """Build one block; stages and blocks count from 0. Attention stages are the subclass's."""
        return LocalBlock(self.embed_dims[stage], **self.block_args(stage, block))

    def block_args(self, stage: int, block: int) -> dict[str, Any]:
        """Return the arguments that all kinds of blocks have."""
        return {
            'mlp_ratio': self.arch.mlp_ratios[stage],
            'drop': self.drop_rate,
            'drop_path': self.drop_path_rates[stage][block],
            'layer_scale_init_value': self.arch.layer_scale_init_value[stage],
            'dims': self.dims,
        }

    def stem(self, stage: int) -> nn.Module:
        """Return the patch embedding of a stage, counted from 0."""
        return self.get_submodule(f'patch_embed{stage + 1}')

    def blocks(self, stage: int) -> nn.ModuleList:
        """Return the blocks of a stage, counted from 0."""
        return self.get_submodule(f'blocks{stage + 1}')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract normed feature maps of images ``(B, in_channels, H, W)``, H and W from 32 up.

        Returns for each stage in ``out_indices`` a contiguous map ``(B, C, H / stride, W /
        stride)``, strides 4, 8, 16, 32, rounded down.

        Raises:
            TypeError: ``x`` is not a floating-point tensor.
            ValueError: ``x`` has the wrong number of axes or channels (``InputError``: size).
        """
        self.check_input(x)
        if self.channels_last:
            x = x.contiguous(memory_format=LAYERS[self.dims].channels_last)
        outs, state = [], None
        for stage in range(self.num_stages):
            x = self.stem(stage)(x)
            if not self.channels_last:
                x = x.contiguous()
            x, state = self.forward_stage(stage, x, state)
            if stage in self.out_indices:
                outs.append(self.normalize(stage, x).contiguous())
        return self.outputs(tuple(outs), state)

    def outputs(self, maps: tuple[Tensor, ...], state: Any) -> Any:
        """Return what a model's neck and head get of the outputs and the last state."""
        return maps

    def normalize(self, stage: int, x: Tensor) -> Tensor:
        """Run the output norm of a stage; BatchNorm is for the last one alone."""
        if self.out_norm == 'LN':
            return self.get_submodule(f'norm{stage + 1}')(x)
        return self.norm(x) if stage == NUM_STAGES - 1 else x

    def forward_stage(self, stage: int, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run the blocks of a stage on a map; ``state`` is what stages pass on besides it."""
        for block in self.blocks(stage):
            x = block(x)
        return x, state

    def check_input(self, x: Tensor) -> None:
        """Refuse what is not a batch of images that the network can take."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(
                f'the backbone takes a floating-point tensor, not {kind}: normalize images first '
                '(the data preprocessor of the model does)'
            )
        axes, noun = {2: ('H, W', 'image'), 3: ('T, H, W', 'clip')}[self.dims]
        if x.ndim != 2 + self.dims or x.shape[1] != self.in_channels:
            raise ValueError(
                f'the backbone takes (B, {self.in_channels}, {axes}), not {tuple(x.shape)}: '
                f'stack {noun}s into a batch, or set in_channels'
            )
        if 0 in x.shape[:-2]:
            raise ValueError(f'the backbone takes a batch of at least one {noun}, not of none')
        if min(x.shape[-2:]) < TOTAL_STRIDE:
            raise InputError(
                f'an image of {x.shape[-2]} x {x.shape[-1]} (H x W) is too small: both sides '
                f'should be at least {TOTAL_STRIDE}, resize or pad it'
            )

    def switch_to_deploy(self, test_cfg: Any = None) -> None:
        """Fold norms, residuals and LayerScale into weights, in place and for good.

        On a CPU, dense layers then keep their weights a second time, as oneDNN reads them. They
        miss changes in place that PyTorch does not see, as by ``weight.data.add_`` or NumPy.

        Outputs stay equal to 1e-5 in float32; see ``execution/folding.py``. The state dict then
        holds other tensors under the old names and says so by the entry ``deployed``. mmpose hands
        ``test_cfg`` to every layer that has this method.

        Raises:
            RuntimeError: The model is in training mode.
        """
        if self.training:
            raise RuntimeError(
                'switch_to_deploy() folds BatchNorm at its running statistics: call eval() first'
            )
        if self.deployed is not None:
            return
        for stage in range(self.num_stages):
            for module in (self.stem(stage), *self.blocks(stage)):
                fold(module, windowed=stage in self.windowed_stages)
        pack(self)
        self.eval()  # the new parts, too
        device = next(self.parameters()).device
        self.deployed = torch.ones((), dtype=torch.bool, device=device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Refuse weights of another form or network; torch and mmengine load both by this."""
        theirs = {
            key.removeprefix(prefix): value
            for key, value in state_dict.items()
            if key.startswith(prefix) and isinstance(value, Tensor)
        }
        check_state_dict(self.state_dict(), theirs)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode: bool = True) -> StagedBackbone:
        """Switch the mode; frozen stages and, with ``norm_eval``, BatchNorm stay in eval."""
        if mode and self.deployed is not None:
            raise RuntimeError('a deployed model cannot train: build a new one and load weights')
        super().train(mode)
        self.freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze(self) -> None:
        """Freeze the stem (``frozen_stages`` from 0) and the first ``frozen_stages`` stages.

        Output norms stay trainable: ImageNet weights have none.
        """
        stages = range(min(self.frozen_stages, self.num_stages))
        names = [f'{part}{s + 1}' for s in stages for part in ('patch_embed', 'blocks')]
        for name in ['patch_embed1', *names] if self.frozen_stages >= 0 else []:
            self.get_submodule(name).eval().requires_grad_(False)

    def init_weights(self) -> None:
        """Initialize as ``init_cfg`` says; weight files in it are checked and come last."""
        if self.is_init or not self.init_cfg:
            super().init_weights()
            return
        given = self.init_cfg
        files, self.init_cfg = split_init_cfg(given)
        try:
            if self.init_cfg:
                super().init_weights()
        finally:
            self.init_cfg = given
        for file in files:
            load_pretrained(self, **file)
        self.is_init = True

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Tell how deep a parameter lies, for layer-wise learning-rate decay, and ``num_layers``.

        The depth is 0 for the stem, one more per block, and ``num_layers - 1`` for output norms and
        everything outside the backbone, whose names start with ``prefix``, like ``'backbone.'``.
        """
        num_layers = sum(self.depths) + 2
        name = param_name.removeprefix(prefix)
        part, _, rest = name.partition('.')
        if not param_name.startswith(prefix) or part.startswith('norm'):
            return num_layers - 1, num_layers
        if part == 'patch_embed1':
            return 0, num_layers
        # The class token enters with the first block of stage 3, its projection with stage 4.
        stage = {'cls_token': 3, 'cls_upsample': 4}.get(part) or int(part[-1])
        block = int(rest.partition('.')[0]) if part.startswith('blocks') else 0
        return 1 + sum(self.depths[: stage - 1]) + block, num_layers


def reset_parameters(module: nn.Module) -> None:
    """Initialize linear layers as the authors do; the others keep PyTorch's way."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stagewise(values: Sequence[float], depths: Sequence[int]) -> list[list[float]]:
    """Split one value a block into one list a stage."""
    values = iter(values)
    return [[next(values) for _ in range(depth)] for depth in depths]


def check_positive(name: str, value: int) -> int:
    """Refuse anything but an integer from 1 up."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name}={value!r} should be an integer from 1 up')
    return value


def lay_out_as_gradients(module: nn.Module) -> None:
    """Give depthwise weights the strides that channels-last gradients have.

    Those of ``(C, 1, k, k)`` are ambiguous: the same elements in the same order. DDP copies
    gradients whose strides are not the weights'.
    """
    if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.groups > 1:
        weight = module.weight.data
        first, _, *others = weight.stride()
        module.weight.data = weight.as_strided(weight.shape, (first, 1, *others))


def check_rates(**rates: float) -> None:
    """Refuse rates outside [0, 1)."""
    for name, rate in rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f'{name}={rate!r} should lie in [0, 1)')


def check_switches(**switches: bool) -> None:
    """Refuse anything but True and False: the text 'no' would switch on."""
    for name, value in switches.items():
        if value not in (True, False):
            raise ValueError(f'{name}={value!r} should be True or False')


def check_out_indices(out_indices: Sequence[int]) -> tuple[int, ...]:
    """Refuse indices that are not increasing stages from 0 to 3."""
    indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
    stages = [stage for stage in range(NUM_STAGES) if stage in indices]
    if not indices or list(indices) != stages:
        raise ValueError(
            f'out_indices={out_indices!r} should be increasing stages from 0 to {NUM_STAGES - 1}'
        )
    return indices


def check_out_norm(out_norm: str, out_indices: tuple[int, ...]) -> str:
    """Refuse an unknown norm, or BatchNorm without the stage that has it."""
    if out_norm not in ('LN', 'BN'):
        raise ValueError(f"out_norm={out_norm!r} should be 'LN' or 'BN'")
    if out_norm == 'BN' and out_indices[-1] != NUM_STAGES - 1:
        raise ValueError(
            f"out_norm='BN' is a norm of the last stage: out_indices={out_indices} should end "
            f'with {NUM_STAGES - 1}'
        )
    return out_norm


def check_frozen_stages(frozen_stages: int) -> int:
    """Refuse counts outside -1 to 4."""
    if frozen_stages not in range(-1, NUM_STAGES + 1):
        raise ValueError(
            f'frozen_stages={frozen_stages!r} should be -1 (none), 0 (the stem) or a number of '
            f'stages up to {NUM_STAGES}'
        )
    return frozen_stages


def check_with_cp(with_cp: bool | str | Sequence[int], depths: Sequence[int]) -> list[list[str]]:
    """Turn ``with_cp`` into what each block of each stage recomputes: nothing, parts or all."""
    if isinstance(with_cp, bool) or with_cp == 'parts':
        counts = tuple(depths) if with_cp is True else (0,) * NUM_STAGES
    else:
        counts = tuple(with_cp) if isinstance(with_cp, Sequence) else ()
    limits = [range(depth + 1) for depth in depths]
    if len(counts) != NUM_STAGES or not all(map(operator.contains, limits, counts)):
        raise ValueError(
            f"with_cp={with_cp!r} should be 'parts', True, False or a count per stage of at most "
            f'{tuple(depths)}'
        )
    rest = 'nothing' if with_cp is False else 'parts'
    return [
        ['all'] * count + [rest] * (depth - count)
        for count, depth in zip(counts, depths, strict=True)
    ]


def find_backbone(model: nn.Module) -> tuple[str, StagedBackbone | None]:
    """Return a model's first backbone of ours, or None, and the prefix of its names."""
    for name, module in model.named_modules():
        if isinstance(module, StagedBackbone):
            return f'{name}.' if name else '', module
    return '', None
