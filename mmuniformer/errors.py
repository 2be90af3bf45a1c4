"""Errors that the user can fix: the message names the thing, its value and the way out."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """Something the user gave can't be used.

    Commands print the message without a traceback and end with status 1.
    """


class CheckpointError(UserError, RuntimeError):
    """A weight file can't be read, or its weights do not belong to this model."""


class InputError(UserError, ValueError):
    """An image or video cannot be used; the others of a run can."""


def refuse_existing(target: Path, force: bool) -> None:
    """Refuse to replace a file.

    Raises:
        UserError: ``target`` is there, and ``force`` is off or it is a folder.
    """
    if target.is_dir():
        raise UserError(f'{target} is a folder: name a file in it')
    if target.exists() and not force:
        raise UserError(f'{target} exists: choose another name, or replace it with --force')
