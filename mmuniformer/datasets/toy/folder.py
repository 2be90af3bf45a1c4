"""The toy dataset as a folder: its layout, its settings, and what an earlier run left in it.

``coco`` holds what COCO 2017 holds (instances and person keypoints over the same images),
``ade`` what ADE20K holds (the images again and one label PNG each), ``toy.json`` the settings, by
which a later run recognizes the set. ``cls`` and ``video`` are folders of classes (labeled.py).
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Iterator
from pathlib import Path

from mmuniformer.datasets.toy.scenes import BASE_SIZE
from mmuniformer.errors import UserError

# Part of the settings: raise it with every change that alters the bytes.
VERSION = 1
MIN_SIZE = 64
RECORD = 'toy.json'
CROPS, CLIPS = 'cls', 'video'
# COCO's folder and ADE's folder of each split.
SPLITS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the bytes of a toy dataset depend on."""

    seed: int = 0
    train_images: int = 400
    val_images: int = 48
    size: int = BASE_SIZE
    version: int = VERSION

    def check(self) -> None:
        """Raise UserError on a value that makes no dataset."""
        if self.seed < 0:
            raise UserError(f'--seed is {self.seed}: give a whole number from 0 up')
        for option, value in (('--images', self.train_images), ('--val-images', self.val_images)):
            if value < 1:
                raise UserError(f'{option} is {value}: a split needs at least one image')
        if self.size < MIN_SIZE:
            raise UserError(f'--size is {self.size}: scenes need at least {MIN_SIZE} pixels a side')

    def images(self, split: str) -> int:
        """Number of images of the split ``train`` or ``val``."""
        return self.train_images if split == 'train' else self.val_images

    def files(self) -> Iterator[Path]:
        """All files but the record, relative to the folder."""
        for split in SPLITS:
            for task in ('instances', 'person_keypoints'):
                yield annotation_file(split, task)
            for index in range(self.images(split)):
                yield from image_files(split, index)


@dataclasses.dataclass(frozen=True)
class ToyData:
    """What a call of ``write_toy_data`` left in ``out``.

    ``instances`` counts by split and class; ``reused`` says that it all was there before.
    """

    out: Path
    settings: Settings
    instances: dict[str, dict[str, int]]
    reused: bool = False

    @property
    def coco(self) -> Path:
        """The data root of detection and pose."""
        return self.out / 'coco'

    @property
    def ade(self) -> Path:
        """The data root of segmentation."""
        return self.out / 'ade'


def annotation_file(split: str, task: str) -> Path:
    """COCO's file for the task ``instances`` or ``person_keypoints``."""
    return Path('coco', 'annotations', f'{task}_{SPLITS[split][0]}.json')


def image_files(split: str, index: int) -> tuple[Path, Path, Path]:
    """The COCO image, the same image for ADE, the label PNG."""
    coco, ade = SPLITS[split]
    stem = f'{image_id_of(split, index):012d}'
    return (
        Path('coco', coco, f'{stem}.jpg'),
        Path('ade', 'images', ade, f'{stem}.jpg'),
        Path('ade', 'annotations', ade, f'{stem}.png'),
    )


def image_id_of(split: str, index: int) -> int:
    """Ids alternate between the splits, so that no id stands for two images."""
    return 2 * index + 1 + list(SPLITS).index(split)


def dump(value: dict) -> str:
    """JSON text that depends on the values alone."""
    return json.dumps(value, sort_keys=True, separators=(',', ':')) + '\n'


@dataclasses.dataclass(frozen=True)
class Record:
    """What ``toy.json`` says of an earlier run; ``instances`` is empty until that run finished."""

    settings: Settings
    instances: dict[str, dict[str, int]]

    @classmethod
    def read(cls, out: Path) -> Record | None:
        """The record of a folder; None where there is none that makes sense."""
        try:
            content = json.loads((out / RECORD).read_text(encoding='utf-8'))
            settings = Settings(**{k: operator.index(v) for k, v in content['settings'].items()})
            settings.check()
            return cls(settings, dict(content['instances']))
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, UserError):
            return None

    def write(self, out: Path) -> None:
        """Write it to a folder."""
        content = {'settings': dataclasses.asdict(self.settings), 'instances': self.instances}
        (out / RECORD).write_text(dump(content), encoding='utf-8')


def _remove(out: Path, settings: Settings) -> None:
    """Remove the files of an earlier run, and the folders that this leaves empty."""
    found = [path.relative_to(out) for name in (CROPS, CLIPS) for path in out.glob(f'{name}/**/*')]
    folders = {path for path in found if (out / path).is_dir()}
    for file in (*settings.files(), *(path for path in found if path.suffix in ('.png', '.avi'))):
        (out / file).unlink(missing_ok=True)
    folders.update(*(path.parents[:-1] for path in (*settings.files(), *found)))
    for folder in sorted(folders, key=lambda f: len(f.parts), reverse=True):
        if (out / folder).is_dir() and not any((out / folder).iterdir()):
            (out / folder).rmdir()


def prepare(out: Path, settings: Settings, force: bool) -> ToyData | None:
    """Make way for a set; return the one that is there already, if it is the very same."""
    if out.exists() and not out.is_dir():
        raise UserError(f'{out} is a file: name a folder for the toy data')
    if not out.exists() or not any(out.iterdir()):
        return None
    record = Record.read(out)
    if not force:
        if record is None:
            raise UserError(
                f'{out} is not empty and holds no toy data: name another folder, '
                f'or add --force to write beside what is there'
            )
        if record.settings != settings:
            raise UserError(
                f'{out} holds toy data made with other settings ({_described(record.settings)}; '
                f'asked for: {_described(settings)}): name another folder, or add --force to '
                f'replace it'
            )
        if not record.instances:  # interrupted: the same settings give the same bytes again
            return None
        lost = [file for file in settings.files() if not (out / file).is_file()]
        if lost:
            raise UserError(
                f'{out} has lost {len(lost)} of its files ({lost[0]}, ...): add --force to write '
                f'it again'
            )
        return ToyData(out, settings, record.instances, reused=True)
    if record is not None:
        _remove(out, record.settings)
        return None
    for name in ('coco', 'ade', CROPS, CLIPS, RECORD):
        if (out / name).exists():
            raise UserError(
                f'{out / name} was not written by toy-data, so it stays even with --force: name '
                f'another folder, or remove it yourself'
            )
    return None


def _described(settings: Settings) -> str:
    return ', '.join(f'{k} {v}' for k, v in dataclasses.asdict(settings).items())
