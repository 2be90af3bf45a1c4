"""Configs and models for the commands: found by name, built in the config's scope."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmuniformer.checkpoints import check_whole_model, loadable, todays_name
from mmuniformer.errors import UserError
from mmuniformer.paths import find_config
from mmuniformer.weight_files import load_state_dict_file


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Read a config by its path, or a shipped one by its name, and change settings in it.

    Args:
        path: Path or name.
        cfg_options: New values by dotted key, like ``{'model.backbone.arch': 'nano'}``.

    Raises:
        UserError: There is no such config, or it can't be read, or it has no such key.
    """
    file = find_config(str(path))
    try:
        cfg = Config.fromfile(file)
    except Exception as error:  # a config is a program: anything may go wrong in it
        raise UserError(f'{file} can not be read: {type(error).__name__}: {error}') from error
    try:
        cfg.merge_from_dict(dict(cfg_options or {}))
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options does not fit {file}: {error}') from error
    return cfg


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Let what is built inside resolve its types in the framework that the config names.

    Raises:
        UserError: That framework does not import.
    """
    scope = cfg.get('default_scope')
    if scope is not None:
        try:
            importlib.import_module(scope)
        except (ImportError, AssertionError, OSError, RuntimeError) as error:
            raise UserError(
                f'the config needs {scope}, which does not import: {error}. '
                'Run `mmuniformer doctor` to see what to do'
            ) from error
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_module(settings: Mapping[str, Any]) -> nn.Module:
    """Build a model or a part of one from its settings.

    Raises:
        UserError: It can't be built; says why.
    """
    try:
        return MODELS.build(settings)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(f'{settings.get("type")} can not be built: {error}') from error


def build_model(
    cfg: Config, checkpoint: str | Path | None = None, device: str | torch.device = 'cpu'
) -> nn.Module:
    """Build a config's model for inference.

    ``init_cfg`` is not followed: the weights are the checkpoint's, or random without one. The
    model has the attribute ``dataset_meta`` (classes and the like) where the checkpoint tells it.

    Args:
        cfg: The config.
        checkpoint: A whole model's weights: path or URL.
        device: Where the model is put. On the meta device it is built without memory.

    Raises:
        CheckpointError: The file can't be read or is of another model.
        UserError: The config has no model or one that can't be built, or its framework does not
            import.
    """
    if 'model' not in cfg:
        raise UserError('the config has no `model`')
    device = torch.device(device)
    with scope_of(cfg), torch.device('meta' if device.type == 'meta' else 'cpu'):
        model = build_module(cfg.model)
    if checkpoint is not None:
        source = str(checkpoint)
        raw = load_state_dict_file(source)
        check_whole_model(model, raw, source)
        weights = {todays_name(name): value for name, value in loadable(raw).items()}
        # What may be missing is known from the check: BatchNorm's counters.
        model.load_state_dict(weights, strict=False)
        meta = (raw.get('meta') or {}).get('dataset_meta')
        if meta:
            model.dataset_meta = meta
    return model.to(device).eval()


class ConfigCommand(click.Command):
    """A command whose ``--cfg-options`` takes several values, as in the frameworks' scripts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further ``key=value``, which is what click knows."""
        repeated, following = [], False
        for arg in args:
            if following and '=' in arg and not arg.startswith('-'):
                repeated += ['--cfg-options'] * (repeated[-1] != '--cfg-options')
            else:
                following = arg == '--cfg-options'
            repeated.append(arg)
        return super().parse_args(ctx, repeated)


def parse_cfg_options(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """Read ``key=value`` texts as mmengine does."""
    wrong = [value for value in values if '=' not in value]
    if wrong:
        raise click.BadParameter(f'{wrong[0]!r} should be KEY=VALUE', ctx, param)
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    return parser.parse_args(['--cfg-options', *values]).cfg_options


cfg_options = click.option(
    '--cfg-options',
    multiple=True,
    metavar='KEY=VALUE ...',
    callback=parse_cfg_options,
    help='Change settings of the config.',
)
"""The option of that name, for commands with ``cls=ConfigCommand``."""
