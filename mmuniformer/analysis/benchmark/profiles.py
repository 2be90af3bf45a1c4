"""The ways to run a network that a benchmark compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmuniformer.errors import UserError

SWITCHES = ('fused_attn', 'channels_last', 'with_cp')
"""Arguments of the backbones that change how they compute and not what."""
INFERENCE, TRAINING = 'inference', 'training'


@dataclass(frozen=True)
class Profile:
    """A way to run a network."""

    name: str
    about: str
    switches: Mapping[str, Any] = field(default_factory=dict)  # that are not the defaults
    policies: bool = True  # whether blocks run as models/execution has it, or by plain lines
    deploy: bool = False  # whether norms are folded into weights; in training they never are
    bfloat16: bool = False
    compiled: bool = False
    channels_last: bool = False  # also outside the backbone
    modes: tuple[str, ...] = (INFERENCE, TRAINING)


PLAIN = dict.fromkeys(SWITCHES, False)
PROFILES = {
    profile.name: profile
    for profile in (
        Profile('plain', 'as released, weights of attention in memory', PLAIN, policies=False),
        Profile('fused', "the package's defaults"),
        Profile('deploy', 'fused, with norms folded into weights', deploy=True, modes=(INFERENCE,)),
        Profile('bf16', 'deploy (training: fused) in bfloat16', deploy=True, bfloat16=True),
        Profile('compile', 'deploy (training: fused) compiled', deploy=True, compiled=True),
        Profile('nhwc', 'fused, neck and heads channels-last, too', channels_last=True),
        Profile('cp', 'fused, all blocks recomputed', {'with_cp': True}, modes=(TRAINING,)),
    )
}


def parse_profiles(names: str, mode: str) -> list[Profile]:
    """Read names, separated by commas; refuse unknown ones and those not for the mode."""
    known = {name: profile for name, profile in PROFILES.items() if mode in profile.modes}
    chosen = list(dict.fromkeys(name.strip() for name in names.split(',')))
    for name in chosen:
        if name not in known:
            reason = f'not for {mode}' if name in PROFILES else 'unknown'
            raise UserError(f'profile {name!r} is {reason}: choose from {", ".join(known)}')
    return [known[name] for name in chosen]
