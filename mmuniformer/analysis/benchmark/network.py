"""The config of the network that a benchmark is asked for."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from mmuniformer.analysis.benchmark.profiles import SWITCHES
from mmuniformer.analysis.layouts import Layout, backbone_settings
from mmuniformer.apis.config import TASKS, framework_of, load_config
from mmuniformer.errors import UserError
from mmuniformer.models.arch import UNIFORMER, UNIFORMER_LIGHT

LIGHT = 'light-'
ARCHS = (*UNIFORMER, *(LIGHT + name for name in UNIFORMER_LIGHT))


def config_of(task: str, network: str, cfg_options: dict[str, Any]) -> Config:
    """Return a task's config; that of a backbone has it as its model, or is made from an arch."""
    for key in {f'model.backbone.{name}' for name in SWITCHES} & cfg_options.keys():
        raise UserError(f'--cfg-options {key}: profiles set it, choose by --profiles')
    if task == 'backbone' and network in ARCHS:
        kind = 'UniFormerLight' if network.startswith(LIGHT) else 'UniFormer'
        settings = {'type': f'mmuniformer.{kind}', 'arch': network.removeprefix(LIGHT)}
        cfg = Config({'model': {'backbone': settings}})
        cfg.merge_from_dict(cfg_options)
    else:
        cfg = load_config(network, cfg_options)
    if task != 'backbone' and framework_of(cfg) != TASKS[task].scope:
        raise UserError(f'{network} is not a config of a {TASKS[task].model}')
    if 'model' not in cfg or not Layout.of(cfg).name:
        raise UserError(f'{network}: the config has no model with a UniFormer backbone')
    if task == 'backbone':
        cfg.model = backbone_settings(cfg)
    return cfg
