"""Checks on COCO annotation files before a run reads them: what is wrong, where, and the cure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from mmuniformer.errors import UserError

TABLES = ('images', 'annotations', 'categories')
IMAGES_CHECKED = 16
"""Images of a data set that are opened before a run; the others are when their turn comes."""


def check_dataset(cfg: Mapping[str, Any]) -> None:
    """Check every COCO-style data set in a data set's config, also inside wrappers.

    Args:
        cfg: What a data loader's ``dataset`` is, with ``ann_file``, ``data_root``, ``data_prefix``
            and ``metainfo`` as mmdet and mmpose have them.

    Raises:
        UserError: Something in it can't be read or would silently leave annotations out.
    """
    for dataset in nested(cfg):
        ann_file = dataset.get('ann_file')
        if ann_file and str(ann_file).endswith('.json') and '://' not in str(ann_file):
            root = Path(dataset.get('data_root') or '')
            content = read_annotations(root / ann_file)
            classes = (dataset.get('metainfo') or {}).get('classes')
            if classes:
                check_classes(root / ann_file, content, classes)
            else:
                check_categories(root / ann_file, content, default_classes(dataset.get('type')))
            prefix = (dataset.get('data_prefix') or {}).get('img', '')
            check_images(root / ann_file, content['images'], root / prefix)


def nested(cfg: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a data set's config and those that it wraps."""
    if isinstance(cfg, Mapping):
        yield cfg
        yield from nested(cfg.get('dataset'))
        yield from nested(cfg.get('datasets'))
    elif isinstance(cfg, (list, tuple)):
        for entry in cfg:
            yield from nested(entry)


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO annotation file.

    Raises:
        UserError: It is missing, no JSON, no COCO file, empty, or names unknown ids.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(
            f'{path}: {error.strerror}. Say where your annotations are: dataset.data_root and '
            'dataset.ann_file of the data loaders, and the evaluators\' ann_file'
        ) from error
    except ValueError as error:
        state = 'is empty' if path.stat().st_size == 0 else f'is no JSON ({error})'
        raise UserError(f'{path} {state}: give a COCO annotation file') from error
    missing = [name for name in TABLES if not isinstance(content, dict) or name not in content]
    if missing:
        raise UserError(f'{path} has no {", ".join(missing)}: it is no COCO annotation file')
    empty = [name for name in ('images', 'categories') if not content[name]]
    if empty:
        raise UserError(f'{path} has an empty list of {" and ".join(empty)}: nothing can be read')
    for table, key in (('categories', 'category_id'), ('images', 'image_id')):
        known = {entry['id'] for entry in content[table]}
        for annotation in content['annotations']:
            if annotation[key] not in known:
                raise UserError(
                    f'{path}: annotation {annotation.get("id")} has {key} {annotation[key]}, which '
                    f'is not in its {table}: add it there or remove the annotation'
                )
    return content


def check_classes(path: Path, content: Mapping[str, Any], classes: Any) -> None:
    """Refuse classes that the file does not have: their annotations would silently be none.

    Raises:
        UserError: A class is not among the file's categories.
    """
    if isinstance(classes, str):  # a text file, one name a line
        try:
            classes = Path(classes).read_text(encoding='utf-8').split('\n')
        except OSError as error:
            raise UserError(
                f'metainfo.classes={classes!r}: {error.strerror}. Give a list of names, '
                "as in '(cat,)', or a text file with one a line"
            ) from error
    names = [category['name'] for category in content['categories']]
    unknown = [name for name in classes if name.strip() and name not in names]
    if unknown:
        raise UserError(
            f'{path} has no category {", ".join(map(repr, unknown))}; it has '
            f'{", ".join(map(repr, names))}: set metainfo.classes to the names in the file'
        )


def default_classes(kind: Any) -> tuple[str, ...]:
    """Return the classes of a data set's type in the framework at hand; () where it names none."""
    if not isinstance(kind, str):
        return ()
    with DATASETS.switch_scope_and_registry(None) as registry:
        dataset = registry.get(kind)
    return tuple(getattr(dataset, 'METAINFO', {}).get('classes', ()))


def check_categories(path: Path, content: Mapping[str, Any], classes: tuple[str, ...]) -> None:
    """Refuse annotations whose category nobody asked for and the data set's type does not know.

    Raises:
        UserError: Names the category. A choice of classes in ``metainfo`` may leave some out.
    """
    names = {category['id']: category['name'] for category in content['categories']}
    used = {names[annotation['category_id']] for annotation in content['annotations']}
    unknown = sorted(used - set(classes)) if classes else ()
    if unknown:
        raise UserError(
            f'{path} annotates {", ".join(map(repr, unknown[:8]))}, which the data set does not '
            'know and would leave out: name your classes in dataset.metainfo.classes of the data '
            'loaders, and their number in num_classes of the heads'
        )


def check_images(path: Path, images: list[dict[str, Any]], folder: Path) -> None:
    """Refuse a data set whose first images are missing or can't be decoded.

    Raises:
        UserError: Names the image.
    """
    from PIL import Image, UnidentifiedImageError

    for entry in images[:IMAGES_CHECKED]:
        file = folder / entry['file_name']
        try:
            with Image.open(file) as picture:
                picture.load()
        except FileNotFoundError as error:
            raise UserError(
                f'{file}, named in {path}, does not exist: set dataset.data_root and '
                'dataset.data_prefix.img to where the images are'
            ) from error
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(
                f'{file} can not be decoded ({error}): replace it, or remove it from {path}'
            ) from error
