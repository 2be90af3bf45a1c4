"""One door to prediction for all tasks: images in, arrays or the framework's data samples out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from mmuniformer.apis.config import load_config, task_of
from mmuniformer.apis.inference.boxes import Detected, GivenBoxes
from mmuniformer.apis.inference.decode import MAX_PIXELS
from mmuniformer.apis.inference.det import DetTask
from mmuniformer.apis.inference.labels import ClsTask, VideoTask, clips_of
from mmuniformer.apis.inference.network import Network
from mmuniformer.apis.inference.pose import PoseTask
from mmuniformer.apis.inference.run import Task, attempt, batches
from mmuniformer.apis.inference.seg import SegTask
from mmuniformer.apis.inference.sources import Frame, frames_of
from mmuniformer.apis.models import BACKBONES, weights_for
from mmuniformer.errors import InputError, UserError


class Predictor:
    """The model of a config, ready for images, a video recognizer for videos.

    Attributes: ``task`` (``'det'``, ``'seg'``, ``'pose'``, ``'cls'`` or ``'video'``), ``model``
    (the framework's), ``meta`` (classes, palette; keypoints, skeleton).

    Args:
        config: Path, or name of a shipped config.
        pretrained: Path or address of the weights; True for those released for the config, False
            for random ones.
        device: A torch device; None for a GPU if there is one.
        amp: Run in half precision: bf16 on a CPU, fp16 elsewhere.
        score_thr: Lowest score of a detected instance.
        top_k: Labels of a classifier for each input.
        detector: Finds the instances of a pose estimator; without it, each image is one.
        max_pixels: Larger images, and videos of larger frames, are refused.
        cfg_options: New values by dotted key.
        backbone: Arguments of the backbone, such as ``stage3_attn='hybrid'``.

    Raises:
        UserError: The config or an option cannot be used, or no weights were released for it.
        CheckpointError: The weights cannot be read or are of another model.

    Example:
        >>> predictor = Predictor('CONFIG', 'epoch_12.pth')  # doctest: +SKIP
        >>> (found,) = predictor('photo.jpg')  # doctest: +SKIP
        >>> found['bboxes'], found['scores'], found['labels']  # doctest: +SKIP
    """

    def __init__(
        self,
        config: str | Path,
        pretrained: bool | str | Path = True,
        device: str | None = None,
        *,
        amp: bool = False,
        score_thr: float = 0.3,
        top_k: int = 5,
        detector: Predictor | None = None,
        max_pixels: int = MAX_PIXELS,
        cfg_options: Mapping[str, Any] | None = None,
        **backbone: Any,
    ):
        if config in BACKBONES:
            raise UserError(
                f'{config} is a backbone, which gives features: build it with get_model, or name '
                'the config of a whole model'
            )
        options = {f'model.backbone.{key}': value for key, value in backbone.items()}
        options |= cfg_options or {}
        self.task = task_of(load_config(config, options))
        if detector is not None and (self.task, detector.task) != ('pose', 'det'):
            raise UserError(
                f'detector: a {detector.task} predictor for a {self.task} one; a det predictor '
                'finds the instances of a pose one'
            )
        weights = weights_for(Path(config).stem, pretrained)
        self.network = Network(self.task, config, weights, device, amp, options)
        self.model, self.meta = self.network.model, self.network.meta
        self.score_thr, self.top_k, self.detector = score_thr, top_k, detector
        self.max_pixels = max_pixels
        self.prepare()  # says now what does not fit

    def prepare(self, boxes: Sequence[np.ndarray] | None = None, batch_size: int = 1) -> Task:
        """Return the task that a call runs."""
        if self.task == 'pose':
            finder = GivenBoxes(boxes) if boxes is not None else None
            if self.detector and not finder:
                finder = Detected(self.detector.prepare())
            return PoseTask(self.network, finder, batch_size=batch_size)
        if boxes is not None:
            raise UserError(f'boxes: a pose estimator takes them, this is a {self.task} predictor')
        if self.task == 'det':
            return DetTask(self.network, self.score_thr)
        if self.task == 'seg':
            return SegTask(self.network)
        return {'cls': ClsTask, 'video': VideoTask}[self.task](self.network, self.top_k)

    def __call__(
        self,
        inputs: Any,
        batch_size: int = 1,
        return_datasamples: bool = False,
        boxes: Sequence[np.ndarray] | None = None,
        return_errors: bool = False,
    ) -> list[Any]:
        """Predict on images.

        Args:
            inputs: A path (an image, a video, a folder of these, or a pattern), an array (BGR or
                gray, uint8), a PIL image, or several of these. A video recognizer takes paths of
                videos and of folders of frames.
            batch_size: Images, and instances of a pose estimator, at a time.
            return_datasamples: Return the framework's data samples, with instances of any score.
            boxes: For a pose estimator: for each image an array ``(N, 4)`` of x1, y1, x2, y2.
            return_errors: Return an ``InputError`` in place of the result of an input that cannot
                be used, and go on; of a broken video, after the results of its frames.

        Returns:
            For each image, of a detector ``bboxes`` ``(N, 4)``, ``scores``, ``labels`` and, from a
            model with masks, ``masks`` ``(N, H, W)``, best first; of a segmentor ``label_map``
            ``(H, W)``; of a pose estimator ``keypoints`` ``(N, K, 2)``, ``keypoint_scores``,
            ``bboxes``, ``bbox_scores`` and ``labels``, in pixels of the image; of a classifier
            ``labels`` and ``scores``, best first.

        Raises:
            InputError: An input cannot be used.
        """
        return list(self.stream(inputs, batch_size, return_datasamples, boxes, return_errors))

    def stream(
        self,
        inputs: Any,
        batch_size: int = 1,
        return_datasamples: bool = False,
        boxes: Sequence[np.ndarray] | None = None,
        return_errors: bool = False,
    ) -> Iterator[Any]:
        """Predict as a call does, but yield one result after the other, for videos and streams."""
        task = self.prepare(boxes, batch_size)

        def run(batch: Sequence[Frame]) -> list[Any]:
            return task.samples(batch) if return_datasamples else list(map(plain, task(batch)))

        items = (clips_of if self.task == 'video' else frames_of)(inputs, self.max_pixels)
        for failed, group in groupby(items, lambda item: isinstance(item, InputError)):
            if not failed:
                chunks = batches(group, batch_size, self.max_pixels)
                group = chain.from_iterable(attempt(run, chunk) for chunk in chunks)
            for result in group:
                if isinstance(result, InputError) and not return_errors:
                    raise result
                yield result


def plain(result: InstanceData | np.ndarray) -> dict[str, np.ndarray]:
    """Return a task's result as arrays by name."""
    return {'label_map': result} if isinstance(result, np.ndarray) else dict(sorted(result.items()))
