"""``mmuniformer test``; ``mim test mmuniformer`` runs it through ``tools/test.py``."""

from __future__ import annotations

from typing import Any

import click

from mmuniformer.cli.loading import loading
from mmuniformer.cli.options import ConfigCommand, cfg_options, run_options


@click.command('test', cls=ConfigCommand)
@click.argument('config')
@click.argument('checkpoint')
@run_options
@click.option('--tta', is_flag=True, help="Use the config's test-time augmentation.")
@cfg_options
def command(config: str, checkpoint: str, **options: Any) -> None:
    """Evaluate CHECKPOINT on the test data of CONFIG.

    CONFIG is a path, or the name of a shipped config; CHECKPOINT is a path or URL. Predictions are
    drawn and written by `mmuniformer predict`.
    """
    with loading():
        from mmuniformer.apis.train import evaluate
    evaluate(config, checkpoint, **options)
