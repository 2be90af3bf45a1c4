"""``mmuniformer train``; ``mim train mmuniformer`` runs it through ``tools/train.py``."""

from __future__ import annotations

from typing import Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options, run_options


@click.command('train', cls=ConfigCommand)
@click.argument('config')
@run_options
@click.option('--amp', is_flag=True, help='Train in mixed precision.')
@click.option('--auto-scale-lr', is_flag=True, help='Scale the learning rate to the batch size.')
@click.option(
    '--resume',
    is_flag=False,
    flag_value='auto',
    metavar='[CHECKPOINT]',
    help='Continue from a checkpoint; without a path, from the latest in the work dir.',
)
@cfg_options
def command(config: str, **options: Any) -> None:
    """Train the detector, segmentor or pose estimator of CONFIG.

    CONFIG is a path, or the name of a shipped config.
    """
    with loading():
        from mmuniformer.apis.train import train
    train(config, **options)
