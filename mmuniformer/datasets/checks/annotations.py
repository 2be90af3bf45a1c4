"""Checks on annotation files before a run reads them: what is wrong, where, and the cure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mmuniformer.datasets.checks.label_maps import check_image_folder
from mmuniformer.datasets.checks.types import dataset_meta, default_classes
from mmuniformer.errors import UserError

FIELDS = {
    'images': ('id', 'file_name', 'width', 'height'),
    'annotations': ('id', 'image_id', 'category_id'),
    'categories': ('id', 'name'),
}
"""The tables of a COCO annotation file, and what the frameworks read of each entry."""

IMAGES_CHECKED = 16
"""Images of a data set that are decoded before a run; the others are when their turn comes."""


def check_dataset(cfg: Mapping[str, Any]) -> None:
    """Check every data set in a data set's config, also inside wrappers.

    Data sets with a COCO annotation file are checked down to their first images, those of folders
    of images (segmentation) for these folders; others, and those on remote storage, are left alone.

    Args:
        cfg: What a data loader's ``dataset`` is, with ``ann_file``, ``data_root``, ``data_prefix``
            and ``metainfo`` as the frameworks have them.

    Raises:
        UserError: Something in it can't be read or would silently leave annotations out.
    """
    for dataset in nested(cfg):
        ann_file = str(dataset.get('ann_file') or '')
        if '://' in f'{dataset.get("data_root")} {ann_file}':
            continue
        if ann_file.endswith('.json'):
            check_coco(dataset)
        elif 'img_path' in (dataset.get('data_prefix') or {}):
            check_image_folder(dataset)


def check_coco(dataset: Mapping[str, Any]) -> None:
    """Check a COCO-style data set (``check_dataset``)."""
    root = Path(dataset.get('data_root') or '')
    path = root / dataset['ann_file']
    content = read_annotations(path, labelled=not dataset.get('test_mode'))
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes:
        check_classes(path, content, classes)
    else:
        check_categories(path, content, default_classes(dataset.get('type')))
    if 'data_mode' in dataset:
        check_people(path, content, dataset)
    else:
        masks = any(step.get('with_mask') for step in dataset.get('pipeline') or ())
        fields = ('bbox', 'area') + ('segmentation',) * masks
        check_fields(path, 'annotations', content['annotations'], fields)
        if not dataset.get('test_mode'):
            check_boxes(path, content)
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
    check_images(path, content['images'], root / prefix)


def nested(cfg: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a data set's config and those that it wraps."""
    if isinstance(cfg, Mapping):
        yield cfg
        yield from nested(cfg.get('dataset'))
        yield from nested(cfg.get('datasets'))
    elif isinstance(cfg, (list, tuple)):
        for entry in cfg:
            yield from nested(entry)


def read_annotations(path: Path, labelled: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Read a COCO annotation file.

    Args:
        path: The file.
        labelled: Whether it has to have annotations; files of test images have none.

    Raises:
        UserError: It is missing, no JSON, no COCO file, empty, or names unknown ids.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise UserError(
            f'{path}: {error.strerror}. Say where your annotations are: dataset.data_root and '
            "dataset.ann_file of the data loaders, and the evaluators' ann_file"
        ) from None
    except ValueError as error:
        state = 'is empty' if path.stat().st_size == 0 else f'is no JSON ({error})'
        raise UserError(f'{path} {state}: give a COCO annotation file') from None
    if isinstance(content, dict) and not labelled:
        content.setdefault('annotations', [])
    missing = [name for name in FIELDS if not isinstance(content, dict) or name not in content]
    if missing:
        raise UserError(f'{path} has no {", ".join(missing)}: it is no COCO annotation file')
    empty = [name for name in ('images', 'categories') if not content[name]]
    if empty:
        raise UserError(f'{path} has an empty list of {" and ".join(empty)}: nothing can be read')
    for table, fields in FIELDS.items():
        check_fields(path, table, content[table], fields)
    for table, key in (('categories', 'category_id'), ('images', 'image_id')):
        known = {entry['id'] for entry in content[table]}
        for annotation in content['annotations']:
            if annotation[key] not in known:
                raise UserError(
                    f'{path}: annotation {annotation["id"]} has {key} {annotation[key]}, which '
                    f'is not in its {table}: add it there or remove the annotation'
                )
    return content


def check_fields(
    path: Path, table: str, entries: Sequence[Mapping[str, Any]], fields: Sequence[str]
) -> None:
    """Refuse entries that lack what the frameworks read of them.

    Raises:
        UserError: Names the first entry and what it lacks.
    """
    for number, entry in enumerate(entries):
        missing = [field for field in fields if field not in entry]
        if missing:
            name = f'{entry["id"]} ' if 'id' in entry else ''
            raise UserError(
                f'{path}: entry {name}(number {number}) of {table} has no {", ".join(missing)}: '
                'add it to the file'
            )


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
            ) from None
    names = [category['name'] for category in content['categories']]
    unknown = [name for name in classes if name.strip() and name not in names]
    if unknown:
        raise UserError(
            f'{path} has no category {", ".join(map(repr, unknown))}; it has '
            f'{", ".join(map(repr, names))}: set metainfo.classes to the names in the file'
        )


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


def check_boxes(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse training data that mmdet would take for images of nothing.

    Raises:
        UserError: No annotation has a box of at least a pixel a side and an area.
    """
    if not any(
        min(entry['bbox'][2:]) >= 1 and entry['area'] > 0 and not entry.get('iscrowd')
        for entry in content['annotations']
    ):
        raise UserError(
            f'{path} has nothing to learn: no annotation has a box of at least a pixel a side, an '
            '`area` above 0, and is no crowd'
        )


def check_people(path: Path, content: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
    """Refuse key point data without a person to crop.

    Raises:
        UserError: ``bbox_file`` is missing, nobody has a box and a visible key point, or key points
            are not as many as the data set's type has.
    """
    boxes = dataset.get('bbox_file')
    if boxes:
        if '://' not in boxes and not Path(boxes).is_file():
            raise UserError(
                f'{boxes}, the detected boxes of people, does not exist: download it, name yours '
                'as dataset.bbox_file, or take annotated boxes with dataset.bbox_file=None'
            )
        return
    people = [person for person in content['annotations'] if can_be_cropped(person)]
    if not people:
        raise UserError(
            f'{path} has no person to crop: each annotation is a crowd, or has no `keypoints`, '
            'none that is visible, or a box without an area'
        )
    count = dataset_meta(dataset).get('num_keypoints') if 'type' in dataset else None
    for person in people:
        if count and len(person['keypoints']) != 3 * count:
            raise UserError(
                f'{path}: annotation {person["id"]} has {len(person["keypoints"])} numbers as '
                f'`keypoints`, and {dataset["type"]} {count} key points of three numbers each (x, '
                'y, visibility): choose the dataset.type of your key points'
            )


def check_outputs(cfg: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse key point data of another number of key points than a pose estimator predicts.

    Raises:
        UserError: Names both numbers.
    """
    outputs = getattr(getattr(model, 'head', None), 'out_channels', None)
    for dataset in nested(cfg):
        if outputs and 'data_mode' in dataset and 'type' in dataset:
            count = dataset_meta(dataset).get('num_keypoints')
            if count != outputs:
                raise UserError(
                    f'{dataset["type"]} has {count} key points and model.head.out_channels is '
                    f'{outputs}: make them equal'
                )


def can_be_cropped(person: Mapping[str, Any]) -> bool:
    """Tell whether a pose data set keeps an annotation."""
    points, box = person.get('keypoints'), person.get('bbox', (0, 0, 0, 0))
    visible = bool(points) and person.get('num_keypoints', max(points)) > 0
    return visible and not person.get('iscrowd') and min(box[2:]) > 0


def check_images(path: Path, images: list[dict[str, Any]], folder: Path) -> None:
    """Refuse a data set with missing or empty images, or whose first ones are not what it says.

    The first are decoded and their size is compared.

    Raises:
        UserError: Names the image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    for number, entry in enumerate(images):
        file = folder / entry['file_name']
        try:
            if not file.stat().st_size:
                raise OSError('it is empty')
            if number >= IMAGES_CHECKED:
                continue
            with Image.open(file) as picture:
                picture.load()
                stored, size = picture.size, ImageOps.exif_transpose(picture).size
        except FileNotFoundError:
            raise UserError(
                f'{file}, named in {path}, does not exist: set dataset.data_root and '
                'dataset.data_prefix.img to where the images are'
            ) from None
        except (OSError, UnidentifiedImageError) as error:
            raise UserError(
                f'{file} can not be decoded ({error}): replace it, or remove it from {path}'
            ) from None
        if size != (entry['width'], entry['height']):
            turned = ' after its EXIF rotation, which is applied when it is read' * (stored != size)
            raise UserError(
                f'{file} is {size[0]} x {size[1]} (width x height){turned}, and {path} says '
                f'{entry["width"]} x {entry["height"]}: its boxes would be misplaced; make them '
                'belong to the image as it is seen, and its width and height'
            )
