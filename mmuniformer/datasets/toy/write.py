"""The toy dataset: deterministic scenes in three stock formats, and the command that writes them.

``folder.py`` has the layout of the folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mmuniformer.datasets.toy.coco import annotation, person_category
from mmuniformer.datasets.toy.folder import (
    SPLITS,
    VERSION,
    Record,
    Settings,
    ToyData,
    annotation_file,
    dump,
    image_files,
    image_id_of,
    prepare,
)
from mmuniformer.datasets.toy.scenes import BASE_SIZE, Scene, sample_scene
from mmuniformer.errors import UserError

CLASSES = ('person', 'box', 'ball')
SEG_CLASSES = ('background', *CLASSES)
SEG_PALETTE = ((110, 116, 130), (222, 82, 70), (88, 160, 92), (240, 178, 50))


def toy_scene(split: str, index: int, seed: int = 0, size: int = BASE_SIZE) -> Scene:
    """The scene of an image: a function of these four alone, not of how many there are."""
    stream = (seed, list(SPLITS).index(split), index)
    return sample_scene(np.random.default_rng(stream), size)


def _encoded(suffix: str, image: np.ndarray, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise UserError(f'OpenCV {cv2.__version__} cannot encode {suffix} files: reinstall it')
    return data.tobytes()


def label_map(scene: Scene) -> np.ndarray:
    """Labels as ADE20K has them: 0 would be unlabeled, 1 is background, then the classes."""
    labels = np.ones(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = SEG_CLASSES.index(instance.label) + 1
    return labels


def _write_split(
    out: Path, split: str, settings: Settings, on_image: Callable[[], None]
) -> dict[str, int]:
    """Write the images and annotations of a split; return the number of instances by class."""
    images, instances, people = [], [], []
    for index in range(settings.images(split)):
        scene = toy_scene(split, index, settings.seed, settings.size)
        image = _encoded('.jpg', scene.image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 95)
        files = image_files(split, index)
        contents = (image, image, _encoded('.png', label_map(scene)))
        for file, content in zip(files, contents, strict=True):
            (out / file).write_bytes(content)

        image_id = image_id_of(split, index)
        images.append(
            {
                'id': image_id,
                'file_name': files[0].name,
                'height': settings.size,
                'width': settings.size,
            }
        )
        for instance in scene.instances:
            entry = annotation(
                instance,
                number=len(instances) + 1,
                image_id=image_id,
                category_id=CLASSES.index(instance.label) + 1,
            )
            instances.append(entry)
            if 'keypoints' in entry:
                people.append(entry)
        on_image()

    named = [
        {'id': number, 'name': name, 'supercategory': name}
        for number, name in enumerate(CLASSES, 1)
    ]
    for task, entries, categories in (
        ('instances', instances, named),
        ('person_keypoints', people, [person_category(CLASSES.index('person') + 1)]),
    ):
        content = {
            'info': {'description': f'mmuniformer toy scenes, {split}', 'version': str(VERSION)},
            'licenses': [],
            'images': images,
            'annotations': entries,
            'categories': categories,
        }
        (out / annotation_file(split, task)).write_text(dump(content), encoding='utf-8')
    counts = Counter(CLASSES[entry['category_id'] - 1] for entry in instances)
    return {name: counts[name] for name in CLASSES}


def write_toy_data(
    out: str | Path,
    seed: int = Settings.seed,
    train_images: int = Settings.train_images,
    val_images: int = Settings.val_images,
    size: int = Settings.size,
    force: bool = False,
    on_image: Callable[[int, int], None] | None = None,
) -> ToyData:
    """Write the toy dataset to the folder ``out``, or find it there.

    The same arguments give the same bytes. Image i depends on the seed, the split, i and the size,
    not on the number of images. A complete set of the same settings is left as it is; ``force``
    replaces the files of an earlier run, and no others. ``on_image`` hears the number of images
    done and of all.

    Raises UserError where ``out`` holds something else or cannot be written, or a value is too
    small. ``size`` is the side of the images in pixels.
    """
    out = Path(out)
    settings = Settings(seed, train_images, val_images, size)
    settings.check()
    try:
        found = prepare(out, settings, force)
        if found is not None:
            return found
        for folder in {file.parent for file in settings.files()}:
            (out / folder).mkdir(parents=True, exist_ok=True)
        Record(settings, {}).write(out)
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            if on_image is not None:
                on_image(done, train_images + val_images)

        instances = {split: _write_split(out, split, settings, count) for split in SPLITS}
        Record(settings, instances).write(out)
    except OSError as error:
        raise UserError(
            f'{error.filename or out} cannot be written ({error.strerror or error}): name a folder '
            f'with room for the images and the right to write there'
        ) from error
    return ToyData(out, settings, instances)
