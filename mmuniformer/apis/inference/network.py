"""A model with its test pipeline, fed with pictures in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from torch import nn

from mmuniformer.apis.config import load_config, scope_of, test_data, type_name
from mmuniformer.apis.models import build_model
from mmuniformer.datasets.checks.types import dataset_meta
from mmuniformer.engine.precision import keep_interfaces_in_float32
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone

SCOPES = {'det': 'mmdet', 'seg': 'mmseg', 'pose': 'mmpose'}
LOADERS = {
    'mmdet': 'mmdet.LoadImageFromNDArray',
    'mmseg': 'mmseg.LoadImageFromNDArray',
    'mmpose': 'mmpose.LoadImage',
}
"""Each framework's transform that takes a picture from memory."""


class Network:
    """A detector, segmentor or pose estimator, ready for pictures in memory.

    ``meta`` says what it predicts (classes, palette; key points and skeleton): as the checkpoint
    records it, else as the config's data set does.

    Args:
        task: ``'det'``, ``'seg'`` or ``'pose'``.
        config: Path, or name of a shipped config.
        checkpoint: Path or URL; None for random weights.
        device: A torch device.
        amp: Run in half precision: bf16 on the CPU, fp16 elsewhere.
        cfg_options: New values by dotted key.
        stage3_attn: Layout of stage 3 instead of the config's.
        window_size: Window side in stage-3 tokens instead of the config's.
        deploy: Fold norms, residuals and LayerScale of the backbone into weights.
        compiled: Run the backbone through ``torch.compile``.

    Raises:
        UserError: The config is of another task, an option does not fit, or the device is absent.
        CheckpointError: The file can't be read or is of another model.
    """

    def __init__(
        self,
        task: str,
        config: str | Path,
        checkpoint: str | Path | None = None,
        device: str = 'cpu',
        amp: bool = False,
        cfg_options: Mapping[str, Any] | None = None,
        stage3_attn: str | None = None,
        window_size: int | None = None,
        deploy: bool = False,
        compiled: bool = False,
    ):
        self.config = str(config)
        self.device = usable_device(device)
        cfg = load_config(config, cfg_options)
        self.scope = cfg.get('default_scope')
        if self.scope != SCOPES[task]:
            fitting = next((t for t, scope in SCOPES.items() if scope == self.scope), None)
            raise UserError(
                f'{config} is a config for {self.scope}, not for {SCOPES[task]}: '
                + (f'use `predict {fitting}`' if fitting else 'set its default_scope')
            )
        self.model = build_model(cfg, checkpoint, self.device)
        set_layout(self.model, stage3_attn, window_size)
        speed_up(self.model, deploy, compiled)
        with scope_of(cfg):
            self.pipeline = Compose(array_pipeline(cfg))
            self.meta = {**config_meta(cfg), **getattr(self.model, 'dataset_meta', {})}
        self.amp = amp
        if amp:
            keep_interfaces_in_float32(self.model)

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Predict on samples, in one batch for each size that the pipeline gives.

        Sizes are not mixed: padding to a common one would let a picture's neighbours change what
        is predicted on it.

        Args:
            samples: What the test pipeline starts from, at least ``img``, BGR ``(H, W, 3)`` uint8.

        Returns:
            The framework's data sample for each.

        Raises:
            UserError: The memory is too small.
            ValueError: A picture is too small, or too long for its width.
        """
        items = [self.pipeline(dict(sample)) for sample in samples]
        groups = defaultdict(list)
        for index, item in enumerate(items):
            # mmseg also wants one original size in a batch.
            original = item['data_samples'].ori_shape if self.scope == 'mmseg' else None
            groups[tuple(item['inputs'].shape), original].append(index)
        results: list[Any] = [None] * len(items)
        for indices in groups.values():
            batch = pseudo_collate([items[index] for index in indices])
            for index, result in zip(indices, self.forward(batch), strict=True):
                results[index] = result
        return results

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
            raise UserError(
                f'not enough memory on {self.device} for {len(batch["inputs"])} pictures of '
                f'{size} (H x W) at a time: lower --batch-size, use --amp, or choose '
                '--stage3-attn hybrid or window'
            ) from error


def usable_device(name: str) -> torch.device:
    """Return a device that is there.

    Raises:
        UserError: It is not, or there is no such kind.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'--device {name} can not be used ({reason}): try --device cpu') from error
    return device


def set_layout(model: nn.Module, stage3_attn: str | None, window_size: int | None) -> None:
    """Switch the layout of the backbone's stage 3 where asked to.

    Raises:
        UserError: The backbone has no layouts.
    """
    if stage3_attn is None and window_size is None:
        return
    backbone = model.backbone
    if not hasattr(backbone, 'set_stage3_attn'):
        raise UserError(
            f'{type(backbone).__name__} has one layout only: leave out --stage3-attn and '
            '--window-size'
        )
    backbone.set_stage3_attn(stage3_attn or backbone.stage3_attn, window_size)


def speed_up(model: nn.Module, deploy: bool, compiled: bool) -> None:
    """Fold the backbone's norms into its weights, and compile it, where asked to.

    Raises:
        UserError: The backbone has no folded form.
    """
    if deploy:
        backbone = find_backbone(model)[1]
        if backbone is None:
            raise UserError('--deploy folds backbones of mmuniformer only: leave it out')
        backbone.switch_to_deploy()
    if compiled:
        model.backbone.compile()


def array_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """Return the test pipeline without annotations, starting from a picture in memory."""
    pipeline = []
    for transform in test_data(cfg)['pipeline']:
        kind = type_name(transform)
        if kind.startswith('LoadImage'):
            transform = {**transform, 'type': LOADERS[cfg.default_scope]}
        elif kind.startswith('Load'):
            continue
        pipeline.append(dict(transform))
    return pipeline


def config_meta(cfg: Config) -> dict[str, Any]:
    """Return what the config's test data set says of classes or key points, without its files."""
    return dataset_meta(test_data(cfg))
