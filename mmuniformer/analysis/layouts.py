"""Layouts of stage 3 by short names: ``global``, ``auto``, ``w32``, ``h32``."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

from mmengine.config import Config

from mmuniformer.apis.config import scope_of
from mmuniformer.errors import UserError
from mmuniformer.registry import class_of

TEST_LAYOUTS = 'global,w32,h32'
"""What the papers test a segmentor in that was trained with a global stage 3."""
LAYOUT_OPTIONS = {'model.backbone.stage3_attn', 'model.backbone.window_size'}
WINDOWED = {'w': 'window', 'h': 'hybrid'}


def backbone_settings(cfg: Config) -> dict[str, Any]:
    """Return the settings of a config's backbone: a part of its model, or the model itself."""
    return cfg.model.get('backbone', cfg.model)


class Layout(NamedTuple):
    """How stage 3 attends; ``stage3_attn`` is None for networks that have no choice."""

    name: str
    stage3_attn: str | tuple[str, ...] | None = None
    window_size: int | None = None

    @classmethod
    def parse(cls, name: str) -> Layout:
        """Read ``global``, ``auto``, ``w32`` (windows of 32 tokens a side) or ``h32`` (hybrid)."""
        if name in ('global', 'auto'):
            return cls(name, name)
        match = re.fullmatch(r'([wh])([1-9]\d*)', name)
        if match is None:
            raise UserError(
                f'layout {name!r}: choose global, auto, wN (windows of N tokens a side) or hN '
                '(hybrid, every fourth block global), like w32'
            )
        return cls(name, WINDOWED[match[1]], int(match[2]))

    @classmethod
    def of(cls, cfg: Config) -> Layout:
        """Return the layout of a config's backbone.

        It is named ``hourglass`` for a light network, ``mixed`` where each block has its own entry,
        and '' for backbones of others.
        """
        backbone = backbone_settings(cfg)
        with scope_of(cfg):
            kind = class_of(backbone)
        if kind is None:
            name = backbone.get('type')
            raise UserError(f'type={name!r} is not registered: name its module in custom_imports')
        if not hasattr(kind, 'set_stage3_attn'):
            return cls('hourglass' if getattr(kind, 'hourglass', False) else '')
        attn = backbone.get('stage3_attn', 'global')
        for letter, windowed in WINDOWED.items():
            if attn == windowed:
                return cls.parse(f'{letter}{backbone.get("window_size", 14)}')
        return cls(attn if isinstance(attn, str) else 'mixed', attn)

    def in_config(self, cfg: Config) -> Config:
        """Return a config whose model has this layout."""
        cfg = copy.deepcopy(cfg)
        chosen = {'stage3_attn': self.stage3_attn, 'window_size': self.window_size}
        backbone_settings(cfg).update({k: v for k, v in chosen.items() if v is not None})
        return cfg


def layouts_of(cfg: Config, names: str | None) -> list[Layout]:
    """Return the layouts of the names, separated by commas; None: the config's own."""
    own = Layout.of(cfg)
    if names is None:
        return [own]
    if own.stage3_attn is None:
        raise UserError('--layouts: the backbone has one layout only, leave the option out')
    return [Layout.parse(name) for name in dict.fromkeys(n.strip() for n in names.split(','))]
