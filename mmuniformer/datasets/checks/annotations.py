"""Checks on a config's datasets before a run reads them: what is wrong, where, and the fix."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from torch import nn

from mmuniformer.datasets.checks.coco import Contents, contents
from mmuniformer.datasets.checks.images import FILES_CHECKED, check_images
from mmuniformer.datasets.checks.label_maps import check_image_folder
from mmuniformer.datasets.checks.types import (
    dataset_meta,
    dataset_type,
    known_format,
    nested,
    unread,
)
from mmuniformer.errors import DataError

CONVERTERS = ('KeypointConverter', 'SingleHandConverter')
"""Steps of mmpose's pipelines after which a sample has another number of keypoints."""
DECODERS = {'MSRAHeatmap', 'UDPHeatmap', 'MegviiHeatmap', 'SimCCLabel', 'RegressionLabel'}
"""mmpose's codecs for which a head has one output a keypoint (UDP's combined ones: three)."""


def check_dataset(cfg: Mapping[str, Any]) -> None:
    """Check every dataset in a dataset's config, also inside wrappers.

    Each is checked by the format that its type reads. A type of another format, and data on remote
    storage, pass with a line in the log.

    Args:
        cfg: What a data loader's ``dataset`` is.

    Raises:
        DataError: Something in it cannot be used or would silently leave annotations out.
    """
    for dataset in nested(cfg):
        form = known_format(dataset_type(dataset.get('type')), FORMATS)
        if form is None or is_remote(dataset):
            reason = 'its files are remote' if form else 'they do not know its format'
            name = name_of(dataset)
            print_log(f'{name} passes without the checks before a run: {reason}', 'current')
        else:
            FORMATS[form](dataset)


def name_of(dataset: Mapping[str, Any]) -> str:
    """Return the name of a dataset's type, a name or a class."""
    kind = dataset.get('type', 'A dataset without a type')
    return getattr(kind, '__name__', str(kind))


def is_remote(dataset: Mapping[str, Any]) -> bool:
    """Tell whether files are read from elsewhere than this machine's folders."""
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    places = [dataset.get('data_root'), dataset.get('ann_file'), dataset.get('data_prefix')]
    return backend != 'local' or '://' in str(places)


def steps(dataset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the steps of a pipeline that are configs."""
    return [step for step in dataset.get('pipeline') or () if isinstance(step, Mapping)]


def check_detection(cfg: Mapping[str, Any]) -> None:
    """Check a COCO, LVIS or panoptic dataset of mmdet."""
    dataset = unread(cfg)
    form = known_format(type(dataset), FORMATS)
    path, folders = Path(dataset.ann_file), dataset.data_prefix
    found = contents(path, form)
    chosen = {key for key, _ in found.categories}
    if not form.startswith('mmdet.LVIS'):  # these take all categories of their file
        chosen = check_classes(cfg, dataset, found, complete=form == 'mmdet.CocoPanopticDataset')
    kept = found.boxes
    if any(step.get('with_mask') and 'Panoptic' not in str(step['type']) for step in steps(cfg)):
        for category in chosen & found.bad_masks.keys():
            raise DataError(found.bad_masks[category])
        kept = found.masks
    if not dataset.test_mode and not kept & chosen:
        raise DataError(
            f'{path} has nothing to learn: no annotation has a bounding box of at least a pixel a '
            'side in its image, an `area` above 0, a mask where masks are loaded, and is no crowd'
        )
    if 'img' not in folders:
        raise DataError(f'{name_of(cfg)} has no data_prefix.img: name the folder of the images')
    names = [lvis_name(image['file_name'], form) for image in found.images]
    sizes = [(image['width'], image['height']) for image in found.images]
    check_images(path, ((Path(folders['img'], n), *s) for n, s in zip(names, sizes, strict=True)))
    if form == 'mmdet.CocoPanopticDataset' and folders.get('seg'):
        maps = [Path(folders['seg'], name.replace('.jpg', '.png')) for name in names]
        check_images(path, ((file, *s) for file, s in zip(maps, sizes, strict=True)))


def lvis_name(name: str, form: str) -> str:
    """Return where mmdet looks for an image: LVIS has addresses, or names of COCO 2014."""
    if form == 'mmdet.LVISV05Dataset' and name.startswith('COCO'):
        return name[-16:]
    return name.replace('http://images.cocodataset.org/', '') if 'LVIS' in form else name


def check_classes(
    cfg: Mapping[str, Any], dataset: BaseDataset, found: Contents, complete: bool
) -> set[Any]:
    """Return the ids of the categories that a dataset takes.

    Args:
        cfg: Its config.
        dataset: As built, unread.
        found: Its annotation file.
        complete: Whether all categories with annotations have to be taken.

    Raises:
        DataError: A class is not in the file, or annotations are of a category that is no class
            (a choice in ``metainfo.classes`` may leave some out).
    """
    path, names = dataset.ann_file, [name for _, name in found.categories]
    classes = dataset.metainfo.get('classes') or ()
    given = (cfg.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):  # mmengine reads a text file, and keeps the name if it fails
        raise DataError(
            f'metainfo.classes={classes!r}: No such file. Give a list of names, as in '
            "'(cat,)', or a text file with one a line"
        )
    if given and (absent := [name for name in classes if name and name not in names]):
        raise DataError(
            f'{path} has no category {listed(absent)}; it has {listed(names)}: set '
            'metainfo.classes to the names in the file'
        )
    unknown = sorted({str(n) for key, n in found.categories if key in found.used} - set(classes))
    if unknown and (complete or not given):
        raise DataError(
            f'{path} annotates {listed(unknown)}, which the dataset does not know and would leave '
            'out: name your classes in dataset.metainfo.classes of the data loaders, and their '
            'number in num_classes of the heads'
        )
    if [name for name in names if name in classes] != [name for name in classes if name]:
        print_log(
            f'{path} has other categories than metainfo.classes, or in another order: mmdet '
            'numbers them as the file does, so that predictions bear wrong names',
            'current',
            logging.WARNING,
        )
    return {key for key, name in found.categories if name in classes}


def listed(names: list[str]) -> str:
    """Return the first names for a message."""
    return ', '.join(map(repr, names[:8])) + ', ...' * (len(names) > 8)


def check_pose(cfg: Mapping[str, Any]) -> None:
    """Check a COCO-style or MPII dataset of mmpose."""
    dataset = unread(cfg)
    form = known_format(type(dataset), FORMATS)
    path = Path(dataset.ann_file)
    for key, what in (('bbox_file', 'detected boxes'), ('headbox_file', 'sizes of heads')):
        file = getattr(dataset, key, None)
        if file and '://' not in file and not Path(file).is_file():
            raise DataError(
                f'{file}, the {what} of people, does not exist: download it, name yours as '
                f'dataset.{key}, or do without by dataset.{key}=None'
            )
    found = contents(path, form)
    if not dataset.bbox_file:
        needed = dataset.data_mode == 'topdown' or not dataset.test_mode
        if needed and not found.people:
            raise DataError(
                f'{path} has no person to crop: each annotation is a crowd, or has no `keypoints`, '
                'none that is visible, or a bounding box without an area'
            )
        count = dataset.metainfo.get('num_keypoints')
        if found.keypoints not in (None, count) and converted(cfg) is None:
            raise DataError(
                f'{path} has {found.keypoints} keypoints a person, and {name_of(cfg)} {count}: '
                'choose the dataset.type of your keypoints'
            )
    folder = Path(dataset.data_prefix.get('img') or '')
    check_images(
        path,
        ((folder / i['file_name'], i.get('width'), i.get('height')) for i in found.images),
    )


def check_xml(cfg: Mapping[str, Any]) -> None:
    """Check the first images of a dataset that has an XML file for each, as Pascal VOC."""
    dataset = unread(cfg)
    root, path = Path(dataset.sub_data_root), Path(dataset.ann_file)
    classes = dataset.metainfo.get('classes') or ()
    try:
        ids = path.read_text(encoding='utf-8').split('\n')
        for key in list(filter(None, ids))[:FILES_CHECKED]:
            path = root / dataset.ann_subdir / f'{key}.xml'
            tree = ElementTree.parse(path)
            for entry in tree.iterfind('object'):
                name = entry.findtext('name')
                if name not in classes and not (cfg.get('metainfo') or {}).get('classes'):
                    raise DataError(
                        f'{path} annotates {name!r}, which the dataset does not know and would '
                        'leave out: name your classes in dataset.metainfo.classes'
                    )
                for side in ('xmin', 'ymin', 'xmax', 'ymax'):
                    if not isfinite(float(entry.findtext(f'bndbox/{side}'))):
                        raise ValueError(f'{side} of {name!r} is not finite')
            size = [tree.findtext(f'size/{side}') for side in ('width', 'height')]
            width, height = map(int, size) if tree.find('size') is not None else (None, None)
            check_images(path, [(root / dataset.img_subdir / f'{key}.jpg', width, height)])
    except OSError as error:
        raise DataError(
            f'{path}: {error.strerror}. Say where your annotations are: dataset.data_root, '
            'dataset.ann_file and dataset.data_prefix.sub_data_root'
        ) from None
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise DataError(f'{path} is no XML file of boxes: {error}') from None
    if not any(ids):
        raise DataError(f'{path} is empty: list the names of images in it, one a line')


def converted(dataset: Mapping[str, Any]) -> int | None:
    """Return the number of keypoints that a step of the pipeline makes; None if none does."""
    for step in reversed(steps(dataset)):
        if str(getattr(step['type'], '__name__', step['type'])).split('.')[-1] in CONVERTERS:
            return step['num_keypoints']
    return None


def keypoint_counts(cfg: Any) -> Iterator[tuple[str, int]]:
    """Yield names of datasets, and the keypoints of their samples as a head gets them."""
    if (count := converted(cfg)) is not None:
        yield name_of(cfg), count
    elif 'dataset' in cfg:
        yield from keypoint_counts(cfg['dataset'])
    elif 'datasets' in cfg:
        for inner in cfg['datasets']:
            yield from keypoint_counts(inner)
    elif (known_format(dataset_type(cfg.get('type')), FORMATS) or '').startswith('mmpose'):
        yield name_of(cfg), dataset_meta(cfg)['num_keypoints']


def check_outputs(cfg: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse keypoint data of another number of keypoints than a pose estimator predicts.

    Heads whose outputs are not counted in keypoints pass.

    Raises:
        DataError: Names both numbers.
    """
    head = getattr(model, 'head', None)
    decoder = getattr(head, 'decoder', None)
    key = next((k for k in ('num_joints', 'out_channels') if hasattr(head, k)), None)
    outputs = getattr(head, key) if key else None
    if type(decoder).__name__ not in DECODERS or not isinstance(outputs, int):
        return
    share = 3 if getattr(decoder, 'heatmap_type', None) == 'combined' else 1
    for name, count in keypoint_counts(cfg):
        if share * count != outputs:
            maps = f', three maps each ({share * count})' * (share > 1)
            raise DataError(
                f'{name} has {count} keypoints{maps} and model.head.{key} is {outputs}: make them '
                'equal'
            )


FORMATS = {
    'mmdet.CocoDataset': check_detection,
    'mmdet.CocoPanopticDataset': check_detection,
    'mmdet.LVISV05Dataset': check_detection,
    'mmdet.LVISV1Dataset': check_detection,
    'mmdet.XMLDataset': check_xml,
    'mmdet.BaseSegDataset': check_image_folder,
    'mmpose.BaseCocoStyleDataset': check_pose,
    'mmpose.CocoWholeBodyDataset': check_pose,
    'mmpose.MpiiDataset': check_pose,
    'mmseg.BaseSegDataset': check_image_folder,
    'mmseg.BaseCDDataset': check_image_folder,
}
"""The dataset types whose format is known, and what checks it; types derived from them follow."""
