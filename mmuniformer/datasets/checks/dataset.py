"""Checks on a config's datasets before a run reads them: what is wrong, where, and the fix."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from mmuniformer.datasets.checks.config import is_remote, nested
from mmuniformer.datasets.checks.detection import check_coco, check_xml
from mmuniformer.datasets.checks.label_maps import check_image_folder
from mmuniformer.datasets.checks.pose import check_pose
from mmuniformer.registry import class_of, type_name

FORMATS = {
    'mmdet.CocoDataset': check_coco,
    'mmdet.XMLDataset': check_xml,
    'mmdet.BaseSegDataset': check_image_folder,
    'mmseg.BaseSegDataset': check_image_folder,
    'mmseg.BaseCDDataset': check_image_folder,
    'mmpose.BaseCocoStyleDataset': check_pose,
}
"""Formats in which users write data of their own, by dataset type, and what checks each."""
READERS = {'load_data_list', '_load_annotations', 'parse_data_info'}
"""Methods of a dataset that read annotations: a class with its own has a format of its own."""


def check_dataset(cfg: Mapping[str, Any]) -> None:
    """Check every dataset in a dataset's config, also inside wrappers.

    What reads another format than those in ``FORMATS``, or remote storage, passes with a line in
    the log.

    Raises:
        DataError: Something in it cannot be used or would silently leave annotations out.
    """
    collects = gc.isenabled()
    gc.disable()  # a collection walks all of a large file, again and again: half of the time
    try:
        for dataset in nested(cfg):
            check = check_of(class_of(dataset, DATASETS))
            places = [dataset.get(key) for key in ('data_root', 'ann_file', 'data_prefix')]
            readers = (dataset, *dataset['pipeline'])
            remote = any(is_remote(reader.get('backend_args')) for reader in readers)
            if check and not remote and '://' not in str(places):
                check(dataset)
                continue
            reason = 'its files are remote' if check else 'its format is not known'
            print_log(f'{type_name(dataset)} is not checked before the run: {reason}', 'current')
    finally:
        if collects:
            gc.enable()


def check_of(kind: Any) -> Callable[[Mapping[str, Any]], None] | None:
    """Return what checks the format that a dataset's type, a class, reads; None if nothing does."""
    for base in getattr(kind, '__mro__', ()):
        name = f'{base.__module__.split(".")[0]}.{base.__name__}'
        if name in FORMATS or READERS & vars(base).keys():
            return FORMATS.get(name)
    return None
