"""Checks on the label maps of images (token labeling)."""

from __future__ import annotations

from typing import Any

from mmuniformer.datasets.checks.images import missing
from mmuniformer.errors import DataError


def check_maps(dataset: Any) -> None:
    """Refuse a dataset whose pipeline loads label maps that do not exist.

    Raises:
        DataError: Counts them, and names the first.
    """
    for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
        if getattr(step, 'label_root', None) is None:
            continue
        images = (dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))
        if absent := missing(map(step.map_of, images)):
            raise DataError(
                f'{len(absent)} of {len(dataset)} images have no label map, the first is '
                f'{absent[0]}: set label_root of LoadLabelMap to the folder that has a folder of '
                'maps for each class, or to none to train without maps'
            )
