"""Settings that cannot be used, named: unknown arguments, values of another kind, variables."""

from __future__ import annotations

import difflib
import inspect
import re
import reprlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Number
from typing import Any

from mmengine.config import Config
from mmengine.registry import build_from_cfg
from mmengine.runner import Runner

from mmuniformer.errors import UserError

UNKNOWN = re.compile(r"got an unexpected keyword argument '(\w+)'")
WRONG = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What settings that cannot be used end in."""
READ = {*inspect.signature(Runner.__init__).parameters, 'tta_model', 'tta_pipeline'}
"""Variables of a config that are read while it runs; others are for the config's own text."""


@contextmanager
def named_settings(cfg: Config, cfg_options: Mapping[str, Any], building: bool) -> Iterator[None]:
    """Turn an error that settings cause into a ``UserError`` that names them.

    Args:
        cfg: The config before ``cfg_options`` changed it.
        cfg_options: New values by dotted key.
        building: All errors of constructors inside are due to settings.

    Raises:
        UserError: Names the setting; other errors stay as they are.
    """
    try:
        yield
    except UserError:
        raise
    except WRONG as error:
        kind = built(error)
        unknown = UNKNOWN.search(str(error))
        text = f'{type(error).__name__}: {error}'
        if odd := of_another_kind(cfg, cfg_options):
            raise UserError(f'{odd} ({text})') from error
        if unknown and kind is not None:
            raise UserError(unknown_argument(kind, unknown[1])) from error
        if building:
            raise UserError(
                f'{getattr(kind, "__name__", "It")} cannot be built: {error}'
            ) from error
        raise


def built(error: Exception) -> Any:
    """Return the class that mmengine was about to build, the innermost one; None without."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    kinds = [f.f_locals.get('obj_cls') for f in frames if f.f_code is build_from_cfg.__code__]
    return kinds[-1] if kinds else None


def unknown_argument(kind: Any, name: str) -> str:
    """Say that a class lacks an argument, and which one is closest.

    Example:
        >>> from torch.optim import SGD
        >>> unknown_argument(SGD, 'momentun')
        "SGD has no argument 'momentun': did you mean 'momentum'?"
    """
    bases = getattr(kind, '__mro__', (kind,))
    known = {
        key for base in bases[: len(bases) - 1 or 1] for key in inspect.signature(base).parameters
    }
    known -= {'self', 'args', 'kwargs'}
    close = difflib.get_close_matches(name, known, 1)
    hint = f'did you mean {close[0]!r}?' if close else f'it has {", ".join(sorted(known))}'
    return f'{kind.__name__} has no argument {name!r}: {hint}'


def of_another_kind(cfg: Config, cfg_options: Mapping[str, Any]) -> str:
    """Name the options that give a value of another kind than the config has; '' without any."""
    found = []
    for key, value in cfg_options.items():
        old = value_at(cfg, key)
        if old is not None and group(old) != group(value):
            found.append(f'{key}={value!r}, where the config has {reprlib.repr(old)}')
    return f'--cfg-options {"; ".join(found)}' if found else ''


def group(value: Any) -> Any:
    """Return what values that may replace each other have in common."""
    for kind in (Number, Mapping, (list, tuple)):
        if isinstance(value, kind):
            return kind
    return type(value)


def value_at(node: Any, key: str) -> Any:
    """Return a setting by its dotted key; None without."""
    for name in key.split('.'):
        try:
            node = node[int(name) if isinstance(node, (list, tuple)) else name]
        except (IndexError, KeyError, TypeError, ValueError):
            return None
    return node


def refuse_without_effect(cfg: Config, cfg_options: Mapping[str, Any]) -> None:
    """Refuse options that nothing reads: variables of the config's text, and misspelled names.

    Raises:
        UserError: Says what to set in ``cfg``, which is as it was before the options.
    """
    for key in cfg_options:
        name = key.partition('.')[0]
        old = cfg.get(name)
        close = difflib.get_close_matches(name, {*READ, *cfg}, 1, cutoff=0.8)
        if close and name not in close:
            raise UserError(f'--cfg-options {key}: nothing reads {name}: did you mean {close[0]}?')
        if name in READ or not isinstance(old, (str, list, tuple, Mapping)) or not old:
            continue
        others = {each: value for each, value in cfg.items() if each in READ}
        places = [p for p, value in settings(others) if type(value) is type(old) and value == old]
        if places:
            listed = ', '.join(places[:4]) + ', ...' * (len(places) > 4)
            raise UserError(
                f'--cfg-options {key}: {name} is a variable of the config, which has been used '
                f'already and is not read again: set {listed}'
            )


def settings(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield all settings by their dotted keys, outer ones first."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in pairs:
        here = f'{place}.{key}' if place else str(key)
        yield here, value
        if isinstance(value, (Mapping, list, tuple)):
            yield from settings(value, here)
