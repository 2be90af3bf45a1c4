"""Errors that the user can cure: the message names the thing, its value and the way out."""


class UserError(Exception):
    """Something the user gave can't be used.

    Commands print the message without a traceback and end with status 1.
    """


class CheckpointError(UserError, RuntimeError):
    """A weight file can't be read, or its weights do not belong to this model."""
