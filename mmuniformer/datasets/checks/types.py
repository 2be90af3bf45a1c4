"""What the type of a data set says, without its files."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS

from mmuniformer.errors import UserError


def dataset_type(kind: Any) -> Any:
    """Return the class of a data set's type in the framework at hand; None if there is none."""
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def default_classes(kind: Any) -> tuple[str, ...]:
    """Return the classes of a data set's type; () where it names none."""
    return tuple(getattr(dataset_type(kind), 'METAINFO', {}).get('classes', ()))


def dataset_meta(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a data set's config says of classes or key points, without its files.

    Raises:
        UserError: Its type is not registered.
    """
    kind, metainfo = dataset_type(dataset['type']), dataset.get('metainfo')
    if kind is None:
        raise UserError(f'dataset.type={dataset["type"]!r} is not registered')
    return dict(kind._load_metainfo(None if metainfo is None else dict(metainfo)))


def image_suffix(dataset: Mapping[str, Any]) -> str:
    """Return how the images of a data set's config end: as it says, else as its type does."""
    kind = dataset_type(dataset.get('type'))
    known = inspect.signature(kind).parameters if kind is not None else {}
    default = known['img_suffix'].default if 'img_suffix' in known else '.jpg'
    return dataset.get('img_suffix', default)
