"""What a dataset's config says, without reading its files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mmuniformer.errors import UserError
from mmuniformer.registry import class_of


def dataset_meta(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes or keypoints that a dataset's config has, without its files."""
    kind, metainfo = class_of(dataset, DATASETS), dataset.get('metainfo')
    if kind is None:
        raise UserError(f'dataset.type={dataset["type"]!r} is not registered')
    with warnings.catch_warnings():
        # mmpose names its files by a path in its sources, and says that it finds them elsewhere.
        warnings.filterwarnings('ignore', 'The metainfo config file')
        return dict(kind._load_metainfo(None if metainfo is None else dict(metainfo)))


def is_remote(backend_args: Mapping[str, Any] | None) -> bool:
    """Tell whether files are read from beyond local folders."""
    return (backend_args or {}).get('backend', 'local') != 'local'


def unread(cfg: Mapping[str, Any]) -> BaseDataset:
    """Build a dataset without annotations and pipeline: paths are joined, defaults filled in."""
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.build({**cfg, 'pipeline': [], 'lazy_init': True})


def nested(cfg: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield the datasets of a config that read files, and each with all steps of its samples.

    Steps of a wrapper's pipeline follow those of the dataset inside. What is built already is left
    out.
    """
    if not isinstance(cfg, Mapping):
        return
    steps = [step for step in cfg.get('pipeline') or () if isinstance(step, Mapping)]
    inner = [cfg['dataset']] if 'dataset' in cfg else cfg.get('datasets')
    if inner is None:
        yield cfg, {**cfg, 'pipeline': steps}
    for each in inner or ():
        for leaf, dataset in nested(each):
            yield leaf, {**dataset, 'pipeline': [*dataset['pipeline'], *steps]}
