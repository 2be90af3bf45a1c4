"""A model with its test pipeline, fed with images in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate

from mmuniformer.apis.config import TASKS, framework_of, load_config, scope_of, split_data
from mmuniformer.apis.inference.run import Task
from mmuniformer.apis.inference.sources import Frame
from mmuniformer.apis.models import build_model
from mmuniformer.datasets.checks.config import dataset_meta
from mmuniformer.engine.precision import keep_interfaces_in_float32
from mmuniformer.errors import InputError, UserError
from mmuniformer.registry import type_name


class Network:
    """The model of a config, ready for images in memory.

    ``meta`` says what it predicts (classes, palette; keypoints and skeleton): as the checkpoint
    records it, else as the config's data set does. ``model`` is the framework's model.

    Args:
        task: Its task, a key of ``mmuniformer.apis.config.TASKS``.
        config: Path, or name of a shipped config.
        checkpoint: Path or address; None for random weights.
        device: A torch device; None for a GPU if there is one.
        amp: Run in half precision: bf16 on a CPU, fp16 elsewhere.
        cfg_options: New values by dotted key.

    Raises:
        UserError: Something does not fit, is absent or cannot be read.
    """

    def __init__(
        self,
        task: str,
        config: str | Path,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        amp: bool = False,
        cfg_options: Mapping[str, Any] | None = None,
    ):
        self.config, self.amp = str(config), amp
        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        try:
            self.device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            why = str(error).splitlines()[0]
            raise UserError(f'device {device}: {why}. Try cpu') from error
        cfg = load_config(config, cfg_options)
        self.scope = framework_of(cfg)
        if self.scope != TASKS[task].scope:
            fitting = next((name for name, t in TASKS.items() if t.scope == self.scope), None)
            raise UserError(
                f'{config} is a config for {self.scope}, not for {TASKS[task].scope}: '
                + (f'use `predict {fitting}`' if fitting else 'set its default_scope')
            )
        self.model = build_model(cfg, checkpoint, self.device)
        with scope_of(cfg):
            self.pipeline = Compose(array_pipeline(cfg))
            self.meta = {**dataset_meta(split_data(cfg)), **getattr(self.model, 'dataset_meta', {})}
        if amp:
            keep_interfaces_in_float32(self.model)

    def __call__(self, items: Sequence[dict[str, Any]], own_size: bool = True) -> list[Any]:
        """Predict on what ``prepare`` returned, in one batch for each size.

        Sizes are not mixed: padding to a common one would let an image's neighbors change what is
        predicted on it. The framework's data sample is returned for each. Without ``own_size`` a
        segmentor's maps keep the size that the pipeline gives.

        Raises:
            InputError: An image is too small or too large for the memory.
        """
        groups = defaultdict(list)
        for index, item in enumerate(items):
            if not own_size:
                item['data_samples'].set_metainfo({'ori_shape': item['data_samples'].img_shape})
            # mmseg also wants one original size in a batch.
            original = item['data_samples'].ori_shape if self.scope == 'mmseg' else None
            groups[tuple(item['inputs'].shape), original].append(index)
        results: list[Any] = [None] * len(items)
        for indices in groups.values():
            batch = pseudo_collate([items[index] for index in indices])
            for index, result in zip(indices, self.forward(batch), strict=True):
                results[index] = result
        return results

    def prepare(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Run the test pipeline on what it starts from, at least ``img``, BGR ``(H, W, 3)`` uint8.

        Raises:
            InputError: An image is too long for its width, or a video cannot be read.
        """
        try:
            return self.pipeline(dict(sample))
        except Exception as error:
            if self.scope == 'mmaction':  # readers raise whatever a video leads them to
                raise InputError(f'its clips cannot be read: {error}') from error
            if not isinstance(error, cv2.error):
                raise
            # What cv2 says of a side that would become 0, and of one beyond 32,767 pixels.
            if 'inv_scale' not in str(error) and 'SHRT_MAX' not in str(error):
                raise
            height, width = sample['img'].shape[:2]
            raise InputError(
                f'an image of {height} x {width} (H x W) is too long for its width: the test '
                f'pipeline cannot resize it ({error.err})'
            ) from error

    def forward(self, batch: dict[str, Any]) -> list[Any]:
        """Run the model on a collated batch."""
        dtype = torch.bfloat16 if self.device.type == 'cpu' else torch.float16
        try:
            with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=self.amp):
                return self.model.test_step(batch)
        except RuntimeError as error:
            if 'out of memory' not in str(error) and 'allocate memory' not in str(error):
                raise
            size = ' x '.join(map(str, batch['inputs'][0].shape[1:]))
            raise InputError(
                f'not enough memory on {self.device} for {len(batch["inputs"])} images of {size} '
                '(H x W) at a time: use --amp, or --cfg-options model.backbone.stage3_attn=hybrid '
                '(or window)'
            ) from error

    def class_names(self, head: Any, numbered: bool = False) -> list[str]:
        """Return the names of the classes of a head, or of the last in a cascade of heads.

        Where nothing names any, they are numbers, if ``numbered`` allows it.
        """
        names = [str(name) for name in self.meta.get('classes') or ()]
        head = head[-1] if hasattr(head, '__len__') else head
        count = getattr(head, 'num_classes', len(names))
        if not names and numbered:
            names = [str(index) for index in range(count)]
        if not names or count != len(names):
            raise UserError(
                f'{self.config}: the model has {count} classes, but the checkpoint or config names '
                f'{len(names)} ({", ".join(names[:3])}...): set them with --cfg-options '
                "test_dataloader.dataset.metainfo.classes=..., or change the model's num_classes"
            )
        return names


class NetworkTask(Task):
    """Predicts by a network."""

    network: Network

    @property
    def overlapped(self) -> bool:
        """Whether reading and writing have threads of their own: beside a GPU."""
        return self.network.device.type != 'cpu'


class FrameTask(NetworkTask):
    """Gives each frame to the network as a whole."""

    def sample(self, frame: Frame) -> dict[str, Any]:
        """Return what the test pipeline starts from."""
        return {'img': frame.image, 'img_id': frame.id, 'img_path': None}

    def prepare(self, frame: Frame) -> Frame:
        """Run the test pipeline."""
        return replace(frame, inputs=self.network.prepare(self.sample(frame)))

    def samples(self, frames: Sequence[Frame], own_size: bool = True) -> list[Any]:
        """Predict on frames: the framework's data samples, with all that was predicted.

        Without ``own_size`` a segmentor's maps keep the size that the pipeline gives.
        """
        return self.network([(f if f.inputs else self.prepare(f)).inputs for f in frames], own_size)


def array_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """Return the test pipeline without annotations, starting from an image in memory."""
    pipeline, scope = [], framework_of(cfg)
    for transform in split_data(cfg)['pipeline']:
        kind = type_name(transform)
        if scope == 'mmaction':  # which reads clips of files itself
            pipeline.append(dict(transform))
            continue
        if scope == 'mmpretrain' and kind.startswith('LoadImage'):
            continue
        if kind.startswith('LoadImage'):
            loader = 'LoadImage' if scope == 'mmpose' else 'LoadImageFromNDArray'
            transform = {**transform, 'type': f'{scope}.{loader}'}
        elif kind.startswith('Load'):
            continue
        pipeline.append(dict(transform))
    return pipeline
