"""Checks on a config's datasets before a run reads them: what is wrong, where, and the fix."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmuniformer.datasets.checks.config import is_remote, nested, unread
from mmuniformer.datasets.checks.detection import check_coco, check_xml
from mmuniformer.datasets.checks.image_lists import check_image_list
from mmuniformer.datasets.checks.label_maps import check_image_folder
from mmuniformer.datasets.checks.pose import check_pose
from mmuniformer.errors import DataError
from mmuniformer.registry import class_of, type_name

Check = Callable[..., None]
"""Takes a dataset's config, the dataset before it loads, and what its file holds, if at hand."""
FORMATS = {
    'mmdet.CocoDataset': check_coco,
    'mmdet.XMLDataset': check_xml,
    'mmdet.BaseSegDataset': check_image_folder,
    'mmseg.BaseSegDataset': check_image_folder,
    'mmseg.BaseCDDataset': check_image_folder,
    'mmpose.BaseCocoStyleDataset': check_pose,
    'mmpretrain.CustomDataset': check_image_list,
}
"""Formats in which users write data of their own, by dataset type, and what checks each."""
READERS = {'load_data_list', '_load_annotations', 'parse_data_info'}
"""Methods of a dataset that read annotations: a class with its own has a format of its own."""


def check_dataset(cfg: Mapping[str, Any]) -> None:
    """Check every dataset in a dataset's config, also inside wrappers.

    Other formats than those in ``FORMATS`` and remote storage pass with a line in the log.

    Raises:
        DataError: Something in it cannot be used or would silently leave annotations out.
    """
    with without_collections():
        for _, dataset, check in checkable(cfg):
            check(dataset, unread(dataset))


def checked_on_load(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Do as ``check_dataset``, but check COCO files when the dataset is built: one parse for both.

    Returns:
        The config, in which types are subclasses that check what their framework has parsed, before
        it uses it. Built datasets are of the types that were named.
    """
    cfg = copy.deepcopy(cfg)
    for leaf, dataset, check in checkable(cfg):
        if check in (check_coco, check_pose):
            leaf['type'] = checking(class_of(leaf, DATASETS), check, dataset)
        else:
            check(dataset, unread(dataset))
    return cfg


def checking(kind: type, check: Check, cfg: Mapping[str, Any]) -> type:
    """Return a subclass of a COCO dataset of mmdet or mmpose that checks its file as it loads."""

    class Checking(kind):
        def full_init(self) -> None:
            with without_collections():
                try:
                    super().full_init()
                except DataError:
                    raise
                except Exception:  # what the framework stumbles on, the check may name
                    try:
                        check(cfg, self)
                    except DataError as reason:
                        raise reason from None
                    raise

        def set_table(self, table: Any) -> None:
            self.__class__ = kind  # done: from here on it is as its framework made it
            check(cfg, self, table.dataset)
            self.coco = table

        coco = property(fset=set_table)  # where both frameworks put what they have parsed

    return Checking


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep Python from walking all of a large file, again and again: half of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def checkable(cfg: Mapping[str, Any]) -> Iterator[tuple[Any, Mapping[str, Any], Check]]:
    """Yield the datasets of a config that can be checked, as ``nested`` does, and what does it."""
    for leaf, dataset in nested(cfg):
        check = check_of(class_of(dataset, DATASETS))
        places = [dataset.get(key) for key in ('data_root', 'ann_file', 'data_prefix')]
        readers = (dataset, *dataset['pipeline'])
        remote = any(is_remote(reader.get('backend_args')) for reader in readers)
        if check and not remote and '://' not in str(places):
            yield leaf, dataset, check
        else:
            reason = 'its files are remote' if check else 'its format is not known'
            print_log(f'{type_name(dataset)} is not checked before the run: {reason}', 'current')


def check_of(kind: Any) -> Check | None:
    """Return what checks the format that a dataset's type, a class, reads; None if nothing does."""
    for base in getattr(kind, '__mro__', ()):
        name = f'{base.__module__.split(".")[0]}.{base.__name__}'
        if name in FORMATS or READERS & vars(base).keys():
            return FORMATS.get(name)
    return None
