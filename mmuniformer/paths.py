"""Where the shipped configs are, in a checkout and in an installed package."""

from __future__ import annotations

import difflib
from pathlib import Path

from mmuniformer.errors import UserError

PACKAGE = Path(__file__).resolve().parent


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
