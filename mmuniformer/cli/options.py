"""Options that several commands have."""

from __future__ import annotations

import argparse
from typing import Any

import click
from mmengine.config import DictAction


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
