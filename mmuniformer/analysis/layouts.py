"""Layouts of stage 3 by short names: ``global``, ``w32``, ``h32``."""

from __future__ import annotations

import copy
import dataclasses
import re

from mmengine.config import Config
from torch import nn

from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone

GLOBAL_LAYOUTS = 'global,w32,h32'
"""What the papers test a segmentor in that was trained with a global stage 3."""
LETTERS = {'w': 'window', 'h': 'hybrid'}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How stage 3 attends; ``stage3_attn`` is None for networks that have no choice."""

    name: str
    stage3_attn: str | None = None
    window_size: int | None = None

    @classmethod
    def parse(cls, name: str) -> Layout:
        """Read ``global``, ``auto``, ``w32`` (windows of 32 tokens a side) or ``h32`` (hybrid).

        Raises:
            UserError: The name is none of these.
        """
        if name in ('global', 'auto'):
            return cls(name, name)
        match = re.fullmatch(r'([wh])([1-9]\d*)', name)
        if match is None:
            raise UserError(
                f'layout {name!r}: choose global, auto, wN (windows of N tokens a side) or hN '
                '(hybrid, every fourth block global), like w32'
            )
        return cls(name, LETTERS[match[1]], int(match[2]))

    @classmethod
    def of(cls, stage3_attn: str, window_size: int) -> Layout:
        """Name a layout after its settings."""
        letters = {kind: letter for letter, kind in LETTERS.items()}
        if stage3_attn in letters:
            return cls.parse(f'{letters[stage3_attn]}{window_size}')
        return cls(stage3_attn, stage3_attn)

    def apply(self, model: nn.Module) -> None:
        """Switch a built model."""
        if self.stage3_attn is not None:
            find_backbone(model)[1].set_stage3_attn(self.stage3_attn, self.window_size)

    def in_config(self, cfg: Config) -> Config:
        """Return a config whose model has this layout."""
        cfg = copy.deepcopy(cfg)
        if self.stage3_attn is not None:
            cfg.model.backbone.stage3_attn = self.stage3_attn
        if self.window_size is not None:
            cfg.model.backbone.window_size = self.window_size
        return cfg


def layouts_of(cfg: Config, names: str | None) -> list[Layout]:
    """Return the layouts asked for; None: the papers' for a model trained global, else its own.

    Raises:
        UserError: A name is unknown, or the backbone has no layouts to choose from.
    """
    backbone = cfg.model.backbone
    if 'Light' in backbone.type:
        if names is not None:
            raise UserError(f'{backbone.type} is an hourglass network: leave the layouts out')
        return [Layout('hourglass')]
    if names is None:
        own = Layout.of(backbone.get('stage3_attn', 'global'), backbone.get('window_size', 14))
        if own.name != 'global':
            return [own]
        names = GLOBAL_LAYOUTS
    return [Layout.parse(name.strip()) for name in dict.fromkeys(names.split(','))]
