"""The command line ``mmuniformer``: a table of sub-commands, each loaded when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple

import click

from mmuniformer.errors import UserError
from mmuniformer.version import __version__


class Entry(NamedTuple):
    """Where a sub-command lives, as ``module:object``, and its line in the overview."""

    target: str
    help: str


COMMANDS = {
    'doctor': Entry(
        'mmuniformer.cli.doctor:command', 'Show what is installed, what is wrong and the cure.'
    ),
    'quickstart': Entry(
        'mmuniformer.cli.quickstart:command', 'Toy data, train, evaluate, draw: the whole road.'
    ),
    'toy-data': Entry(
        'mmuniformer.cli.toy_data:command', 'Write a toy data set for all three tasks.'
    ),
    'predict': Entry('mmuniformer.cli.predict:command', 'Predict on pictures, folders and videos.'),
    'explain': Entry('mmuniformer.cli.explain:command', 'Draw where a model looks on one picture.'),
    'browse': Entry('mmuniformer.cli.browse:command', "Draw augmented images of a config's data."),
    'plot': Entry('mmuniformer.cli.plot:command', 'Draw the curves of a training run.'),
    'benchmark': Entry(
        'mmuniformer.cli.benchmark:command', 'Measure profiles and layouts side by side.'
    ),
    'complexity': Entry(
        'mmuniformer.cli.complexity:command', 'Count parameters and FLOPs, attention included.'
    ),
    'export': Entry(
        'mmuniformer.cli.export:command', 'Write ONNX and torch.export files, checked.'
    ),
    'convert': Entry(
        'mmuniformer.cli.convert:command', 'Rewrite released weights into clean files, and back.'
    ),
    'model-zoo': Entry(
        'mmuniformer.analysis.metafile:command',
        "Write the READMEs' model tables from the metafiles.",
    ),
}


class LazyGroup(click.Group):
    """Lists its commands from the table alone, so that the overview needs no framework."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command.

        Raises:
            UserError: if something the command needs is missing or broken.
        """
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(':')
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError(
                f'{cmd_name} can not start: {type(error).__name__}: {error}. '
                'Run `mmuniformer doctor` to see what to do.'
            ) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table."""
        with formatter.section('Commands'):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; what the user can cure becomes one message and exit status 1."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__, prog_name='mmuniformer')
def group() -> None:
    """UniFormer backbones for detection, segmentation and pose."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``tools/*.py`` give the sub-command and pass their arguments on.

    Example:
        ``main(['doctor', *sys.argv[1:]])``
    """
    group.main(args=arguments, prog_name='mmuniformer')
