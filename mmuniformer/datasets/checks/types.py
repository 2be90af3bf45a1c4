"""What the type of a dataset says, without reading its files."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmuniformer.errors import UserError

READERS = {'load_data_list', '_load_annotations', 'parse_data_info'}
"""Methods of a dataset that read annotations: a class with its own has a format of its own."""


def dataset_type(kind: Any) -> Any:
    """Return the class of a dataset's type in the current framework; None if there is none."""
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def dataset_meta(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes or keypoints that a dataset's config has, without its files.

    Raises:
        UserError: Its type is not registered.
    """
    kind, metainfo = dataset_type(dataset['type']), dataset.get('metainfo')
    if kind is None:
        raise UserError(f'dataset.type={dataset["type"]!r} is not registered')
    return dict(kind._load_metainfo(None if metainfo is None else dict(metainfo)))


def known_format(kind: Any, formats: Container[str]) -> str | None:
    """Return the class whose format a dataset's type reads, as in ``mmdet.CocoDataset``.

    Args:
        kind: The type, a class.
        formats: The classes to choose from.

    Returns:
        None if it is none of them, or derives from one and reads annotations in its own way.
    """
    for base in getattr(kind, '__mro__', ()):
        name = f'{base.__module__.split(".")[0]}.{base.__name__}'
        if name in formats:
            return name
        if READERS & vars(base).keys():
            return None
    return None


def unread(cfg: Mapping[str, Any]) -> BaseDataset:
    """Build a dataset without annotations and pipeline: paths are joined, defaults filled in."""
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.build({**cfg, 'pipeline': [], 'lazy_init': True})


def nested(cfg: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the datasets of a config that read files, also inside wrappers."""
    if isinstance(cfg, (list, tuple)):
        for entry in cfg:
            yield from nested(entry)
    elif isinstance(cfg, Mapping):
        inner = [cfg[key] for key in ('dataset', 'datasets') if key in cfg]
        yield from nested(inner) if inner else (cfg,)
