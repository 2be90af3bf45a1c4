"""Errors that the user can fix: the message names the thing, its value and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something the user gave cannot be used: commands print the message alone, with status 1."""


class CheckpointError(UserError, RuntimeError):
    """A weight file cannot be read, or its weights do not belong to this model."""


class InputError(UserError, ValueError):
    """An image or video cannot be used; the others of a run can."""


class DataError(UserError):
    """A check before a run refuses its data."""

    def __str__(self) -> str:
        """Return what is wrong, and how to run all the same."""
        return (
            f'{super().__str__()}. If this is as you want it, set check_data=False in the config.'
        )


def refuse_existing(targets: Path | Iterable[Path], force: bool) -> None:
    """Refuse to replace files: the one check before any output is written."""
    for target in [targets] if isinstance(targets, Path) else targets:
        if target.is_dir():
            raise UserError(f'{target} is a folder: name a file in it')
        if target.exists() and not force:
            raise UserError(f'{target} exists: choose another name, or replace it with --force')


@contextmanager
def explain_write_errors(file: Path) -> Iterator[None]:
    """Name a file that cannot be written, as on a full disk."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{file} could not be written: {error}') from error
