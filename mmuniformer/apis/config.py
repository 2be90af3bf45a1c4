"""Tasks, and configs: found by name, read, and the scope that they resolve types in."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmuniformer.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]


class Task(NamedTuple):
    """A task of dense prediction: the scope of its framework, and what its models are called."""

    scope: str
    model: str


TASKS = {
    'det': Task('mmdet', 'detector'),
    'seg': Task('mmseg', 'segmentor'),
    'pose': Task('mmpose', 'pose estimator'),
}
"""By the name that commands and folders have for it."""


def config_root() -> Path:
    """Return the folder that holds ``det``, ``seg`` and ``pose``.

    An installed package carries it in ``.mim``, where mim looks; a checkout has it beside the
    package.
    """
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def find_config(name: str) -> Path:
    """Return the path of a config given as a path, a file name or a bare name.

    Example:
        >>> find_config('mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco').suffix
        '.py'

    Raises:
        UserError: if there is no such file and no shipped config of that name.
    """
    path = Path(name)
    if path.is_file():
        return path
    wanted = path.name if path.suffix == '.py' else f'{path.name}.py'
    shipped = [p for p in sorted(config_root().rglob('*.py')) if '_base_' not in p.parts]
    for candidate in shipped:
        if candidate.name == wanted:
            return candidate
    close = ', '.join(difflib.get_close_matches(path.stem, [p.stem for p in shipped]))
    raise UserError(
        f'{name}: no such file, and no shipped config has that name. '
        f'{f"The closest are {close}." if close else f"They are in {config_root()}."}'
    )


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Read a config by its path, or a shipped one by its name, and change settings in it.

    Args:
        path: Path or name.
        cfg_options: New values by dotted key, like ``{'model.backbone.arch': 'nano'}``.

    Raises:
        UserError: There is no such config, or it can't be read, or it has no such key.
    """
    file = find_config(str(path))
    try:
        cfg = Config.fromfile(file)
    except Exception as error:  # a config is a program: anything may go wrong in it
        raise UserError(f'{file} can not be read: {type(error).__name__}: {error}') from error
    try:
        cfg.merge_from_dict(dict(cfg_options or {}))
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options does not fit {file}: {error}') from error
    return cfg


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Let what is built inside resolve its types in the framework that the config names.

    Raises:
        UserError: That framework does not import.
    """
    scope = cfg.get('default_scope')
    if scope is not None:
        try:
            importlib.import_module(scope)
        except (ImportError, AssertionError, OSError, RuntimeError) as error:
            raise UserError(
                f'the config needs {scope}, which does not import: {error}. '
                'Run `mmuniformer doctor` to see what to do'
            ) from error
    with DefaultScope.overwrite_default_scope(scope):
        yield
