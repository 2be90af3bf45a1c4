"""Profiles of the benchmark: ways to run one network with one set of weights."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmuniformer.analysis.complexity import MAP_HEADS, named_members
from mmuniformer.engine.precision import as_float32
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone
from mmuniformer.models.execution import remove_policies

SWITCHES = ('fused_attn', 'channels_last', 'with_cp')
"""Arguments of the backbones that change how they compute and not what."""
INFERENCE, TRAINING = 'inference', 'training'


@dataclass(frozen=True)
class Profile:
    """How a network is run. In training nothing is folded into weights, whatever ``deploy``."""

    name: str
    about: str
    switches: Mapping[str, Any] = field(default_factory=dict)
    """Those of ``SWITCHES`` that are not the backbone's defaults."""
    deploy: bool = False
    bfloat16: bool = False
    compiled: bool = False
    stock_layers: bool = False
    """Whether layers are PyTorch's own and not ours."""
    modes: tuple[str, ...] = (INFERENCE, TRAINING)

    def in_config(self, cfg: Config) -> Config:
        """Return a config whose backbone has the profile's switches and defaults otherwise."""
        cfg = copy.deepcopy(cfg)
        for name in SWITCHES:
            cfg.model.backbone.pop(name, None)
        cfg.model.backbone.update(self.switches)
        return cfg

    def prepare(self, model: nn.Module, mode: str) -> None:
        """Bring a model in evaluation, built from the profile's config, into the profile's form."""
        backbone = find_backbone(model)[1]
        if self.stock_layers:
            remove_policies(backbone)
        if self.deploy and mode == INFERENCE:
            backbone.switch_to_deploy()
        if self.bfloat16:
            for module in (backbone, *heads_of(model)):
                run_in_bfloat16(module)
        if self.compiled:
            backbone.compile(dynamic=False)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            'plain',
            'as released: the whole matrix of weights, channels first',
            {'fused_attn': False, 'channels_last': False, 'with_cp': False},
            stock_layers=True,
        ),
        Profile('fused', "the package's defaults"),
        Profile('deploy', 'fused, with norms folded into weights', deploy=True, modes=(INFERENCE,)),
        Profile('bf16', 'deploy (training: fused) in bfloat16', deploy=True, bfloat16=True),
        Profile(
            'compile', 'deploy (training: fused), backbone compiled', deploy=True, compiled=True
        ),
        Profile(
            'cp', 'fused, all blocks recomputed in backward', {'with_cp': True}, modes=(TRAINING,)
        ),
    )
}


def parse_profiles(names: str, mode: str) -> list[Profile]:
    """Read profiles by name, separated by commas.

    Raises:
        UserError: A name is unknown, or the profile is not for the mode.
    """
    chosen = []
    for name in dict.fromkeys(name.strip() for name in names.split(',')):
        known = [profile.name for profile in PROFILES.values() if mode in profile.modes]
        if name not in PROFILES:
            raise UserError(f'profile {name!r} is unknown: choose of {", ".join(known)}')
        if name not in known:
            raise UserError(f'profile {name!r} is not for {mode}: choose of {", ".join(known)}')
        chosen.append(PROFILES[name])
    return chosen


def heads_of(model: nn.Module) -> Iterable[nn.Module]:
    """Yield the neck and heads of a framework's model, where it has any."""
    for owner, names in (
        (model, ('neck', *MAP_HEADS)),
        (getattr(model, 'roi_head', None), ('bbox_head', 'mask_head')),
    ):
        for name in names:
            for _, module in named_members(owner, name):
                yield module


def run_in_bfloat16(module: nn.Module) -> None:
    """Let a module compute in bfloat16 and give float32, which the frameworks' operators take."""
    forward = module.forward
    device = next(module.parameters()).device.type

    @functools.wraps(forward)
    def in_bfloat16(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, torch.bfloat16):
            return as_float32(forward(*args, **kwargs))

    module.forward = in_bfloat16
