"""Classification of images and videos: labels with scores, records, table rows, drawings."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmuniformer.apis.inference.decode import IMAGES, MAX_PIXELS, Video, is_video, read_image
from mmuniformer.apis.inference.network import FrameTask, Network
from mmuniformer.apis.inference.sources import Frame, Frames, Source, expand, in_turn
from mmuniformer.errors import InputError
from mmuniformer.visualization.draw import draw_labels

NUMBERED = re.compile(r'(?P<start>.*?)(?P<number>\d+)(?P<end>\.\w+)')
"""How frames of a folder are named, such as img_00001.jpg."""
FRAME_FOLDER_FPS = 25.0
"""At which a folder of frames is drawn: it does not tell its own."""


class ClsTask(FrameTask):
    """Predicts the ``top_k`` most likely classes of an image, best first.

    Category ids are the class indices from 0.
    """

    unit = 'labels'
    head = 'head'
    """The classifier of the framework's model."""

    def __init__(self, network: Network, top_k: int = 5):
        self.network = network
        self.top_k = top_k
        self.classifier = getattr(network.model, self.head, None)
        self.classes = network.class_names(self.classifier, numbered=True)
        self.categories = [{'id': i, 'name': name} for i, name in enumerate(self.classes)]

    def __call__(self, frames: Sequence[Frame]) -> list[InstanceData]:
        """Predict on frames: each has arrays ``labels`` (class indices) and ``scores``."""
        return [self.best(self.probabilities(sample.pred_score)) for sample in self.samples(frames)]

    def sample(self, frame: Frame) -> dict[str, Any]:
        """Return what the test pipeline starts from."""
        size = frame.image.shape[:2]
        return {'img': frame.image, 'img_shape': size, 'ori_shape': size, 'img_path': None}

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of classes from what the framework calls their scores."""
        return scores

    def best(self, scores: torch.Tensor) -> InstanceData:
        """Return the classes with the highest scores."""
        scores, labels = scores.float().topk(min(self.top_k, len(scores)))
        return InstanceData(labels=labels.cpu().numpy(), scores=scores.cpu().numpy())

    def named(self, result: InstanceData) -> Iterator[tuple[int, str, float]]:
        """Yield index, name and score of the classes of a result."""
        for label, score in zip(result.labels.tolist(), result.scores.tolist(), strict=True):
            yield label, self.classes[label], round(score, 5)

    def records(self, frame: Frame, result: InstanceData) -> list[dict[str, Any]]:
        """Return a record for each label."""
        return [
            {'image_id': frame.id, 'category_id': label, 'category': name, 'score': score}
            for label, name, score in self.named(result)
        ]

    def rows(self, frame: Frame, result: InstanceData) -> list[dict[str, Any]]:
        """Return a row of a table for each label."""
        return [
            {'input': str(frame), 'rank': rank, 'label': label, 'name': name, 'score': score}
            for rank, (label, name, score) in enumerate(self.named(result), 1)
        ]

    def draw(self, image: np.ndarray, result: InstanceData) -> np.ndarray:
        """Write names and scores onto the image."""
        return draw_labels(image, [f'{name} {score:.2f}' for _, name, score in self.named(result)])


class VideoTask(ClsTask):
    """Predicts the ``top_k`` most likely classes of a video, by the views of the test pipeline."""

    head = 'cls_head'

    def sample(self, frame: Clip) -> dict[str, Any]:
        """Return what the test pipeline starts from: a file, or a folder of frames."""
        return frame.sample

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of classes.

        mmaction2's heads give logits unless they average probabilities.
        """
        if getattr(self.classifier, 'average_clips', 'prob') == 'prob':
            return scores
        return scores.float().reshape(-1, scores.shape[-1]).mean(0).softmax(-1)


@dataclass(frozen=True)
class Clip(Frame):
    """A whole video, or a folder of its frames, to be classified; ``image`` is its first frame."""

    files: Sequence[Path] = ()
    """The frames of a folder."""
    max_pixels: int = MAX_PIXELS

    @property
    def location(self) -> dict[str, Any]:
        """Where the frames are, by mmaction2's keys."""
        path = self.source.path
        if not self.files:
            return {'filename': str(path), 'start_index': 0}
        name = NUMBERED.fullmatch(self.files[0].name)
        return {
            'frame_dir': str(path),
            'total_frames': len(self.files),
            'filename_tmpl': f'{name["start"]}{{:0{len(name["number"])}}}{name["end"]}',
            'start_index': int(name['number']),
        }

    @property
    def sample(self) -> dict[str, Any]:
        """What a test pipeline of mmaction2 starts from."""
        return {**self.location, 'label': -1, 'modality': 'RGB', 'offset': 0}

    def images(self) -> Iterator[tuple[int | None, np.ndarray]]:
        """Yield the index and image of each frame."""
        if self.files:
            for index, file in enumerate(self.files):
                yield index, read_image(file, self.max_pixels)
        else:
            yield from Video(self.source.path, self.max_pixels).frames()


class Clips(Frames):
    """The videos of files, folders and glob patterns, each as a ``Clip``.

    A folder without videos whose images have numbers for names is one, too.
    """

    def expand(self, text: str) -> list[Path]:
        """Return the videos and folders of frames that one input stands for."""
        return expand_clips(text)

    def frames(self, source: Source) -> Iterator[Frame]:
        """Yield a video."""
        yield open_clip(source, self.ids(source.path), self.max_pixels)


def clips_of(
    inputs: str | Path | Iterable[str | Path], max_pixels: int = MAX_PIXELS
) -> Iterator[Frame | InputError]:
    """Yield videos by path, in the order given; their ids count from 0.

    In place of what cannot be used comes the error that says so.
    """
    number = itertools.count()

    def opened(path: Path) -> Iterator[Frame]:
        yield open_clip(Source(path, path.stem), next(number), max_pixels)

    def found(each: Any) -> Iterator[Frame | InputError]:
        if not isinstance(each, (str, Path)):
            raise InputError(f'a {type(each).__name__} is no video: give the path of one')
        yield from in_turn(expand_clips(str(each)), opened)

    return in_turn([inputs] if isinstance(inputs, (str, Path)) else inputs, found)


def expand_clips(text: str) -> list[Path]:
    """Return the videos and folders of frames that one input stands for."""
    path = Path(os.path.expanduser(text))
    if not path.is_dir() or not text:
        return expand(text)
    if frames_in(path):
        return [path]
    videos = [file for file in expand(text) if is_video(file)]
    if not videos:
        raise InputError(f'{path}: the folder holds no video, nor numbered frames of one')
    return videos


def open_clip(source: Source, number: Any, max_pixels: int) -> Clip:
    """Open a video, or a folder of frames."""
    path = source.path
    if path.is_dir():
        files = frames_in(path)
        image = read_image(files[0], max_pixels)
        return Clip(image, number, source, None, FRAME_FOLDER_FPS, files, max_pixels)
    if path.suffix.lower() in IMAGES:
        raise InputError(f'{path}: an image, not a video: `predict cls` takes images')
    video = Video(path, max_pixels)
    _, image = next(video.frames())  # which says if there is none
    video.capture.release()
    return Clip(image, number, source, None, video.fps, max_pixels=max_pixels)


def frames_in(folder: Path) -> list[Path]:
    """Return the images of a folder in the order of the numbers that their names end in.

    None if it holds videos, or images whose names differ by more than the number.
    """
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith('.')]
    names = [NUMBERED.fullmatch(path.name) for path in files if path.suffix.lower() in IMAGES]
    others = any(is_video(path) for path in files)
    if others or not all(names) or len({(name['start'], name['end']) for name in names}) != 1:
        return []
    return [folder / name[0] for name in sorted(names, key=lambda name: int(name['number']))]
