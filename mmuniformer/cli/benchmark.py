"""The command ``mmuniformer benchmark``: one sub-command a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from mmengine.config import Config

from mmuniformer.analysis.benchmark.command import (
    config_of,
    options,
    own_layouts,
    refuse_switches,
    run_benchmark,
)
from mmuniformer.analysis.benchmark.seg import seg
from mmuniformer.apis.config import load_config
from mmuniformer.cli.benchmark_page import page
from mmuniformer.cli.options import ConfigCommand
from mmuniformer.errors import UserError
from mmuniformer.models.arch import UNIFORMER, UNIFORMER_LIGHT

LIGHT = 'light-'
ARCHS = (*UNIFORMER, *(LIGHT + name for name in UNIFORMER_LIGHT))


@click.group('benchmark')
def command() -> None:
    """Measure time, memory, FLOPs and accuracy side by side."""


command.add_command(seg)
command.add_command(page)


def backbone_config(name: str, cfg_options: dict[str, Any]) -> Config:
    """Return a config with a backbone: of an arch by its name, or as a config has it.

    Raises:
        UserError: It is neither, the config can't be read, or an option is a profile's.
    """
    refuse_switches(cfg_options)
    if name not in ARCHS:
        try:
            return load_config(name, cfg_options)
        except UserError as error:
            raise UserError(f'{error}; archs are {", ".join(ARCHS)}') from error
    kind = 'UniFormerLight' if name.startswith(LIGHT) else 'UniFormer'
    backbone = {'type': f'mmuniformer.{kind}', 'arch': name.removeprefix(LIGHT)}
    cfg = Config({'model': {'backbone': backbone}})
    cfg.merge_from_dict(cfg_options)
    return cfg


@command.command('backbone', cls=ConfigCommand)
@click.argument('network')
@options
def backbone(
    network: str, layouts: str | None, cfg_options: dict[str, Any], **settings: Any
) -> None:
    """Measure the backbone NETWORK alone: an arch (small, base, light-xs, ...) or a config's."""
    cfg = backbone_config(network, cfg_options)
    run_benchmark('backbone', Path(network).stem, cfg, None, own_layouts(cfg, layouts), **settings)


@command.command('det', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@options
def det(
    config: str, checkpoint: str | None, layouts: str | None, cfg_options: dict[str, Any],
    **settings: Any,
) -> None:  # fmt: skip
    """Measure a detector: heads on 1,000 proposals and masks on 100, as FLOPs are counted."""
    cfg = config_of('det', config, cfg_options)
    run_benchmark('det', Path(config).stem, cfg, checkpoint, own_layouts(cfg, layouts), **settings)


@command.command('pose', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint', required=False)
@options
def pose(
    config: str, checkpoint: str | None, layouts: str | None, cfg_options: dict[str, Any],
    **settings: Any,
) -> None:  # fmt: skip
    """Measure a pose estimator, from the cropped and normalized image to heatmaps."""
    cfg = config_of('pose', config, cfg_options)
    run_benchmark('pose', Path(config).stem, cfg, checkpoint, own_layouts(cfg, layouts), **settings)
