"""Tasks, and configs: found by name, read, and the scope that they resolve types in."""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmuniformer.apis.settings import value_at
from mmuniformer.compat import CONFIGS
from mmuniformer.errors import UserError
from mmuniformer.models.arch import TOTAL_STRIDE
from mmuniformer.registry import type_name


class Task(NamedTuple):
    """A task: the scope of its framework, and what its models are called."""

    scope: str
    model: str


TASKS = {
    'det': Task('mmdet', 'detector'),
    'seg': Task('mmseg', 'segmentor'),
    'pose': Task('mmpose', 'pose estimator'),
    'cls': Task('mmpretrain', 'image classifier'),
    'video': Task('mmaction', 'video recognizer'),
}
"""By the name that commands and folders have for it."""


def shipped_configs() -> dict[str, Path]:
    """Return the paths of the shipped configs by their names."""
    return {p.stem: p for p in sorted(CONFIGS.rglob('*.py')) if '_base_' not in p.parts}


def find_config(name: str) -> Path:
    """Return the path of a config given as a path, a file name or a bare name; refuse others.

    Example:
        >>> find_config('mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco').suffix
        '.py'
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_configs()
    stem = path.name.removesuffix('.py')
    if stem in shipped:
        return shipped[stem]
    close = ', '.join(difflib.get_close_matches(stem, shipped))
    raise UserError(
        f'{name}: no such file, and no shipped config has that name. '
        + (f'The closest are {close}.' if close else f'They are in {CONFIGS}.')
    )


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Read a config by its path, or a shipped one by its name, and change settings in it.

    A ``data_preprocessor`` beside the model becomes the model's, unless that has its own. The keys
    of ``cfg_options`` are dotted, like ``{'model.backbone.arch': 'nano'}``; a list in the place of
    a tuple becomes one.

    Raises:
        UserError: There is no such config, it cannot be read, or it has no such key.
    """
    file = find_config(str(path))
    try:
        cfg = Config.fromfile(file)
    except Exception as error:  # a config is a program: anything may go wrong in it
        raise UserError(f'{file} cannot be read: {type(error).__name__}: {error}') from error
    options = dict(cfg_options or {})
    for key, value in options.items():
        if isinstance(value, list) and isinstance(value_at(cfg, key), tuple):
            options[key] = tuple(value)  # transforms tell them apart
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f'--cfg-options does not fit {file}: {error}') from error
    if cfg.get('data_preprocessor') and isinstance(cfg.get('model'), dict):
        # As mmengine's Runner does, which prediction and export do without.
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg


def framework_of(cfg: Config) -> str | None:
    """Return the scope that a config resolves types in: its own, else that of its model's type."""
    if cfg.get('default_scope'):
        return cfg.default_scope
    kind = cfg.get('model', {}).get('type', '')
    package = (kind.__module__ if isinstance(kind, type) else str(kind)).partition('.')[0]
    return package if package in {task.scope for task in TASKS.values()} else None


def task_of(cfg: Config) -> str:
    """Return the task of a config, a key of ``TASKS``.

    Raises:
        UserError: It is of none.
    """
    scope = framework_of(cfg)
    for name, task in TASKS.items():
        if task.scope == scope:
            return name
    scopes = ', '.join(task.scope for task in TASKS.values())
    raise UserError(f'{cfg.filename}: default_scope is {scope}: set it to one of {scopes}')


def split_data(cfg: Config, split: str = 'test') -> Mapping[str, Any]:
    """Return the config of the dataset of a split, of a wrapped one the first inside."""
    data = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
    while data is not None and 'pipeline' not in data:
        inner = data.get('dataset', data.get('datasets'))
        data = inner[0] if isinstance(inner, (list, tuple)) else inner
    if data is None:
        raise UserError(
            f'the config has no {split}_dataloader.dataset.pipeline, which says how images are '
            'prepared: add one'
        )
    return data


def test_scale(cfg: Config) -> tuple[int, int] | None:
    """Return the two sides that the test pipeline resizes images to; None if it does not."""
    for transform in split_data(cfg)['pipeline'] if cfg.get('test_dataloader') else ():
        scale = transform.get('scale')
        if scale and type_name(transform).endswith('Resize'):
            return (scale, scale) if isinstance(scale, int) else tuple(scale)
    return None


def test_setting(cfg: Config, key: str) -> Any:
    """Return a setting of the first transform of the test pipeline that has it; None without."""
    pipeline = split_data(cfg)['pipeline'] if cfg.get('test_dataloader') else ()
    return next((transform[key] for transform in pipeline if key in transform), None)


def clip_views(cfg: Config) -> tuple[int, int] | None:
    """Return the frames of a clip and the views of a video in tests; None for images."""
    frames = test_setting(cfg, 'clip_len')
    views = (test_setting(cfg, 'num_clips') or 1) * (test_setting(cfg, 'crops') or 1)
    return (frames, views) if frames else None


def channel_order(cfg: Config) -> str:
    """Return the order of channels, RGB or BGR, that a config's network takes."""
    settings, read = cfg.model.get('data_preprocessor', {}), read_order(cfg)
    swapped = settings.get('bgr_to_rgb') or settings.get('to_rgb')
    return read[::-1] if swapped else read


def read_order(cfg: Config) -> str:
    """Return the order of channels, RGB or BGR, that a config's pipeline reads.

    mmaction2's read frames as RGB unless they say otherwise; those of images read BGR.
    """
    if framework_of(cfg) != 'mmaction':
        return 'BGR'
    return (test_setting(cfg, 'channel_order') or 'rgb').upper()


def test_image_size(cfg: Config) -> tuple[int, int]:
    """Return the image height and width that a config tests at, rounded up to a multiple of 32.

    That of a pose estimator, and of what cuts its images, is exact.
    """
    if 'input_size' in cfg.get('codec', {}):
        width, height = cfg.codec.input_size
        return height, width
    if crop := test_setting(cfg, 'crop_size'):
        return (crop, crop) if isinstance(crop, int) else tuple(crop)
    if scale := test_scale(cfg):
        return tuple(math.ceil(side / TOTAL_STRIDE) * TOTAL_STRIDE for side in sorted(scale))
    raise UserError('the config does not state the size of images: give --shape HEIGHT WIDTH')


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Let what is built inside resolve its types in the framework that the config names."""
    scope = framework_of(cfg)
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
