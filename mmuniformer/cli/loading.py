"""Imports that take seconds, put off until the options of a command are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from mmuniformer.errors import UserError


@contextmanager
def starting(command: str) -> Iterator[None]:
    """Let an import that fails inside point to ``mmuniformer doctor``."""
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f'{command} cannot start: {type(error).__name__}: {error}. '
            'Run `mmuniformer doctor` for a fix.'
        ) from error


@contextmanager
def loading() -> Iterator[None]:
    """Set the package up for what the current command imports inside.

    The context's object is what sets it up; None where the package was imported as usual.
    """
    context = click.get_current_context()
    with starting(context.command_path):
        if context.obj is not None:
            context.obj()
        yield
