"""The command line ``mmuniformer``: sub-commands, each imported only when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import click

from mmuniformer.cli.loading import starting
from mmuniformer.errors import UserError
from mmuniformer.version import __version__

COMMANDS = {
    'doctor': 'Check the installation and print fixes.',
    'quickstart': 'Train, evaluate and draw nano models on toy data.',
    'toy-data': 'Write a toy dataset for all three tasks.',
    'config': 'Write a config with all it inherits as one file to edit.',
    'train': 'Train a detector, segmentor or pose estimator.',
    'test': 'Evaluate a checkpoint on the test data of a config.',
    'predict': 'Predict on images, folders and videos.',
    'explain': 'Draw what a model attends to on one image.',
    'benchmark': 'Measure speed and memory of profiles and layouts.',
    'complexity': 'Count parameters and FLOPs, attention included.',
    'export': 'Write and check ONNX and torch.export files.',
    'weights': 'List, fetch and verify released weights.',
    'convert': 'Convert checkpoints from and to the released layout.',
}
"""What the overview says of each. ``toy-data`` is ``command`` of ``mmuniformer.cli.toy_data``."""


class LazyGroup(click.Group):
    """A group that lists its commands from ``COMMANDS`` without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of ``COMMANDS``."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        with starting(f'mmuniformer {cmd_name}'):
            module = importlib.import_module(f'mmuniformer.cli.{cmd_name.replace("-", "_")}')
        return module.command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from ``COMMANDS``."""
        with formatter.section('Commands'):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; print a ``UserError`` as one message and exit with status 1.

        Ctrl-C ends with status 130, as shells expect it.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            if not error.args:  # else it was logged
                click.echo('Interrupted', err=True)
            raise SystemExit(130) from None
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='mmuniformer')
def group() -> None:
    """Detect, segment and estimate poses with UniFormer backbones."""


def main(arguments: Sequence[str] | None = None, set_up: Callable[[], None] | None = None) -> None:
    """Run the command line, by default with the arguments of the process.

    ``set_up`` executes the package's ``__init__``, where this has not been done.
    """
    group.main(args=arguments, prog_name='mmuniformer', obj=set_up)
