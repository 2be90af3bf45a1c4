"""Labeled videos: a list with a line each, a folder a class, or folders of frames."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmuniformer.datasets.checks.images import missing
from mmuniformer.errors import UserError
from mmuniformer.registry import DATASETS

SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
"""Of files that are taken for videos where folders tell the classes."""


class ClipDataset(BaseDataset):
    """Samples of a list, by mmaction2's keys.

    Unlike mmaction2's it names what is wrong with a list before the run, takes paths with spaces,
    and labels after a comma as well as after a space.
    """

    folder: str
    """Key of ``data_prefix`` for the folder that paths are relative to."""
    line: str
    """How a line is written, for messages."""
    pattern: re.Pattern
    METAINFO: Mapping[str, Any] = {}

    def __init__(
        self, ann_file: str = '', data_prefix: Mapping[str, str] | None = None, **kwargs: Any
    ):
        super().__init__(ann_file, data_prefix=dict(data_prefix or {self.folder: ''}), **kwargs)

    def sample(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return what a line says of a video."""
        raise NotImplementedError

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list.

        Raises:
            UserError: It does not exist, a line is written in another way, or a path or class is
                not there.
        """
        file = Path(self.ann_file)
        if not file.is_file():
            raise UserError(f'{file}, the list of videos, does not exist: set dataset.ann_file')
        samples = []
        for number, line in enumerate(file.read_text(encoding='utf-8').splitlines(), 1):
            if line.strip():
                fields = self.pattern.fullmatch(line.strip())
                if not fields:
                    raise UserError(f'{file}, line {number}: {line!r} is not "{self.line}"')
                path = os.path.join(self.data_prefix[self.folder], fields['path'])
                sample = self.sample(path, fields.groupdict())
                samples.append(sample | {'label': int(fields['label'])})
        self.refuse_missing([sample[self.path_key] for sample in samples])
        self.refuse_labels(samples)
        return samples

    @property
    def path_key(self) -> str:
        """Key of a sample for its path."""
        return 'frame_dir' if self.folder == 'img' else 'filename'

    def refuse_missing(self, paths: Sequence[str]) -> None:
        """Refuse paths that do not exist."""
        if absent := missing(paths):
            raise UserError(
                f'{self.ann_file}: {len(absent)} of {len(paths)} paths do not exist, the first is '
                f'{absent[0]}: set dataset.data_prefix.{self.folder} to the folder that they are '
                'relative to, or take them out of the list'
            )

    def refuse_labels(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Refuse labels beyond the named classes."""
        count = len(self.metainfo.get('classes', ()))
        worst = max(samples, key=lambda sample: sample['label'], default=None)
        if count and worst and worst['label'] >= count:
            raise UserError(
                f'{self.ann_file}: {worst[self.path_key]} has the label {worst["label"]}, and '
                f'metainfo.classes names {count}: labels are numbers from 0 to {count - 1}'
            )

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return a sample by the keys that mmaction2's transforms read."""
        return super().get_data_info(idx) | {'modality': 'RGB'}


@DATASETS.register_module()
class VideoDataset(ClipDataset):
    """Video files: a list with ``PATH LABEL`` a line, or folders whose names are the classes.

    Args:
        ann_file: The list. Without one, each folder in ``data_prefix['video']`` is a class, and the
            videos in it are its samples; classes are numbered by the alphabet, or in the order of
            ``metainfo['classes']``.
        data_prefix: ``dict(video=FOLDER)``, to which paths are relative.
        kwargs: As mmengine's ``BaseDataset`` takes them: ``data_root``, ``metainfo``, ``pipeline``,
            ``test_mode``, ``indices``.

    Example:
        >>> train = dict(type='mmuniformer.VideoDataset', data_prefix=dict(video='my/train'))
    """

    folder, line = 'video', 'PATH LABEL'
    pattern = re.compile(r'(?P<path>.+?)[\s,]+(?P<label>\d+)')

    def sample(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return what a line says of a video."""
        return {'filename': path}

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the list, or look into the folders."""
        if self.ann_file:
            return super().load_data_list()
        root = Path(self.data_prefix['video'])
        folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        names = list(self.metainfo.get('classes') or [folder.name for folder in folders])
        unknown = [folder.name for folder in folders if folder.name not in names]
        if not folders or unknown:
            found = f'the folder {unknown[0]}, no class' if unknown else 'no folders'
            raise UserError(
                f'{root} holds {found}: without ann_file each class is a folder of videos there, '
                'named as in metainfo.classes if that is set; set data_prefix.video or ann_file'
            )
        self._metainfo['classes'] = tuple(names)
        return [
            {'filename': str(file), 'label': names.index(folder.name)}
            for folder in folders
            for file in sorted(folder.rglob('*'))
            if file.suffix.lower() in SUFFIXES
        ]


@DATASETS.register_module()
class FrameDataset(ClipDataset):
    """Videos that lie as folders of images: a list with ``FOLDER FRAMES LABEL`` a line.

    Args:
        ann_file: The list.
        data_prefix: ``dict(img=FOLDER)``, to which paths are relative.
        filename_tmpl: How the images of a folder are named, by their number.
        start_index: Number of the first image.
        kwargs: As for ``VideoDataset``.
    """

    folder, line = 'img', 'FOLDER FRAMES LABEL'
    pattern = re.compile(r'(?P<path>.+?)[\s,]+(?P<frames>\d+)[\s,]+(?P<label>\d+)')

    def __init__(
        self,
        ann_file: str,
        *args: Any,
        filename_tmpl: str = 'img_{:05}.jpg',
        start_index: int = 1,
        **kwargs: Any,
    ):
        self.naming = {'filename_tmpl': filename_tmpl, 'start_index': start_index}
        super().__init__(ann_file, *args, **kwargs)

    def sample(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """Return what a line says of a video."""
        frames = int(fields['frames'])
        if not frames:
            raise UserError(f'{self.ann_file}: {path} has 0 frames: take it out of the list')
        return {'frame_dir': path, 'total_frames': frames} | self.naming
