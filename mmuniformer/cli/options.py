"""Options that several commands share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

import click

from mmuniformer.cli.loading import loading

# Copies of what stands where an import takes seconds; a test compares them.
TASKS = ('det', 'seg', 'pose', 'cls', 'video')
MAX_PIXELS = 2**28 // 3


class ConfigCommand(click.Command):
    """A command whose ``--cfg-options`` takes several values, like the frameworks' scripts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each further ``key=value``: click takes one value at a time."""
        repeated, following = [], False
        for arg in args:
            if following and '=' in arg and not arg.startswith('-'):
                repeated += ['--cfg-options'] * (repeated[-1] != '--cfg-options')
            else:
                following = arg == '--cfg-options'
            repeated.append(arg)
        return super().parse_args(ctx, repeated)

    def invoke(self, ctx: click.Context) -> Any:
        """Read the settings once the options are known to be right: mmengine imports torch."""
        ctx.params['cfg_options'] = parse_cfg_options(ctx, ctx.params['cfg_options'])
        return super().invoke(ctx)


def parse_cfg_options(ctx: click.Context, values: tuple[str, ...]) -> dict[str, Any]:
    """Read ``key=value`` texts as mmengine does."""
    if not values:
        return {}
    hint = "'--cfg-options'"
    for value in values:
        if '=' not in value:
            raise click.BadParameter(f'{value!r} is not KEY=VALUE', ctx, param_hint=hint)
    with loading():
        from mmengine.config import DictAction
    found = argparse.Namespace()
    try:
        DictAction(['--cfg-options'], 'cfg_options')(None, found, values)
    except AssertionError as error:  # how mmengine reports brackets that do not match
        raise click.BadParameter(str(error), ctx, param_hint=hint) from error
    return found.cfg_options


cfg_options = click.option(
    '--cfg-options',
    multiple=True,
    metavar='KEY=VALUE ...',
    help='Override settings of the config.',
)
"""For commands with ``cls=ConfigCommand``."""

device = click.option(
    '--device', metavar='DEVICE', help='Like cpu or cuda:0.  [default: cuda if there is one]'
)


max_pixels = click.option(
    '--max-pixels',
    type=click.IntRange(1),
    default=MAX_PIXELS,
    show_default='89 million',
    help='Pixels of the largest image or video frame that is decoded.',
)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that training and testing share, as launchers and mim pass them."""
    for option in (
        click.option(
            '--local-rank',
            '--local_rank',
            type=int,
            default=0,
            hidden=True,
            expose_value=False,
            # torch.distributed.launch gives the option; torchrun sets the environment itself.
            callback=lambda _, __, rank: os.environ.setdefault('LOCAL_RANK', str(rank)),
        ),
        click.option(
            '--launcher',
            type=click.Choice(['none', 'pytorch', 'slurm', 'mpi']),
            default='none',
            show_default=True,
            help='Distributed launcher.',
        ),
        click.option('--work-dir', metavar='DIR', help='Folder for logs and checkpoints.'),
    ):
        function = option(function)
    return function
