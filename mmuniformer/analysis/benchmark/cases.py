"""What a benchmark runs: a network in a profile and layout, its inputs, the calls on them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from mmuniformer.analysis.benchmark.profiles import SWITCHES, TRAINING, Profile
from mmuniformer.analysis.benchmark.step import build_optimizer
from mmuniformer.analysis.layouts import backbone_settings
from mmuniformer.apis.config import clip_views
from mmuniformer.apis.models import build_model, quiet
from mmuniformer.engine.precision import keep_interfaces_in_float32
from mmuniformer.models.base import find_backbone
from mmuniformer.models.execution import set_policies
from mmuniformer.models.layers import LAYERS

SEED = 0
OBJECTS = 10
"""In an image of a detector that is trained."""
SMALL = (64, 64)
"""Size of the call that loads libraries before memory is measured."""
Shape = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run; recorded beside its figures."""

    task: str  # backbone, det, seg, pose, cls or video
    config: str
    checkpoint: str | None
    shapes: tuple[Shape, ...]
    batch_size: int
    repeats: int  # timed rounds; with 0 no time is taken
    mode: str  # inference, or training (forward and backward)
    device: str
    operators: bool = False  # whether the time is also split by kinds of operators
    amp: str | None = None  # type that all profiles and baselines compute in, under autocast
    step: bool = False  # whether training includes the optimizer
    loop: bool = False  # whether the whole training loop is measured


def in_profile(cfg: Config, profile: Profile) -> Config:
    """Return a config whose backbone has the profile's switches and defaults otherwise."""
    cfg = copy.deepcopy(cfg)
    backbone = backbone_settings(cfg)
    for name in SWITCHES:
        backbone.pop(name, None)
    backbone.update(profile.switches)
    return cfg


@dataclass(frozen=True)
class Case:
    """A network to measure: one of ours in a profile and layout, or a baseline."""

    name: str
    cfg: Config  # its model is what runs: a bare backbone where the task is backbone
    settings: Settings
    layout: str | None = None
    profile: Profile | None = None  # None for a baseline
    published: str | None = None  # accuracy that others state for it, and who

    @property
    def dtype(self) -> str:
        """Name of the type that it computes in."""
        half = self.profile is not None and self.profile.bfloat16
        return self.settings.amp or ('bfloat16' if half else 'float32')

    @property
    def training(self) -> bool:
        """Tell whether forward and backward are run."""
        return self.settings.mode == TRAINING

    def build(self) -> nn.Module:
        """Build the model, with the same weights in every profile."""
        profile = self.profile
        import_modules_from_strings(**self.cfg.get('custom_imports', {'imports': []}))
        torch.manual_seed(SEED)
        checkpoint = self.settings.checkpoint if profile else None
        model = build_model(self.cfg, checkpoint, self.settings.device)
        if profile:
            backbone = find_backbone(model)[1]
            if not profile.policies:
                set_policies(backbone, fused_attn=False, policies={})
            if profile.deploy and not self.training:
                backbone.switch_to_deploy()
            if profile.compiled:
                backbone.compile(dynamic=False)
            if profile.channels_last:
                for name, part in model.named_children():
                    if name != 'data_preprocessor':  # its mean may have 4 axes in 3-D models
                        part.to(memory_format=LAYERS[backbone.dims].channels_last)
        if self.dtype == 'bfloat16':
            keep_interfaces_in_float32(model)
        if self.training:
            model.train()
            if self.settings.step:
                device = torch.device(self.settings.device)
                model.optimizer = build_optimizer(self.cfg, model, device, self.dtype)
                return model
            # Gradients of 0: the same memory in all profiles, and no activations.
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        return model

    def size(self, shape: Shape) -> tuple[int, ...]:
        """Return the size of an image, or frames and size of a clip of the config's length."""
        return (*(clip_views(self.cfg) or ())[:1], *shape)

    def inputs(self, model: nn.Module, shape: Shape) -> tuple[Any, ...]:
        """Return normalized images and, for a whole model, random annotations of the task."""
        torch.manual_seed(SEED)
        settings, size = self.settings, self.size(shape)
        channels = backbone_settings(self.cfg).get('in_channels', 3)
        images = torch.randn(settings.batch_size, channels, *size, device=settings.device)
        if settings.task == 'backbone':
            return (images,)
        if settings.task == 'video':
            images = images.unsqueeze(1)  # one view
        samples = annotate(settings.task, model, len(images), shape)
        meta = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), shape)
        for sample in samples:
            sample.set_metainfo({**meta, 'scale_factor': (1.0, 1.0), 'padding_size': [0] * 4})
        return images, [sample.to(settings.device) for sample in samples]

    def call(self, model: nn.Module, shape: Shape) -> Callable[[], Any]:
        """Return the call to measure, its inputs at hand.

        Inference runs as far as its cost does not depend on what is found. A segmentor: to the
        label map. A detector: heads on 1,000 proposals, masks on 100, without the choice among
        boxes. A pose estimator: to heatmaps. A classifier: to logits, of clips one view. A backbone
        is trained for the loss ``sum(out ** 2) / 2``.
        """
        inputs, task = self.inputs(model, shape), self.settings.task

        def infer() -> Any:
            with torch.inference_mode(), self.autocast():
                return (
                    model(inputs[0], mode='predict') if task == 'seg' else self.run(model, inputs)
                )

        def train() -> None:
            with self.autocast():
                outs = model(*inputs) if task == 'backbone' else model.loss(*inputs)
            if task == 'backbone':
                torch.autograd.backward(outs, [out.detach() for out in outs])
            elif self.settings.step:
                model.optimizer.update_params(model.parse_losses(outs)[0])
            else:
                model.parse_losses(outs)[0].backward()
            model.zero_grad(set_to_none=self.settings.step)

        return train if self.training else infer

    def run(self, model: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """Run a model to what its head gives; mmaction2's own forward ends at the backbone."""
        if self.settings.task == 'video':
            return model.extract_feat(inputs[0], stage='head')[0]
        return model(*inputs)

    def outputs(self, model: nn.Module, shape: Shape) -> list[Tensor]:
        """Return tensors that should be alike in all profiles: in training the losses.

        Else maps of the backbone, of a detector the neck's (proposals turn on small differences),
        scores of segmentors, heatmaps, logits.
        """
        inputs, task = self.inputs(model, shape), self.settings.task
        torch.manual_seed(SEED)
        with torch.no_grad(), self.autocast():
            if self.training and task != 'backbone':
                losses = model.parse_losses(model.loss(*inputs))[1]
                return [value for name, value in losses.items() if 'loss' in name]
            outs = model.extract_feat(inputs[0]) if task == 'det' else self.run(model, inputs)
            return [outs] if isinstance(outs, Tensor) else list(outs)

    def autocast(self) -> torch.autocast:
        """Return a context in which the case's type is computed in."""
        kind = torch.device(self.settings.device).type
        enabled = self.dtype != 'float32'
        return torch.autocast(kind, getattr(torch, self.dtype) if enabled else None, enabled)

    def prepare(self, shape: Shape) -> Callable[[], Any]:
        """Build the model and return the call to measure, for a fresh process."""
        with quiet(prints=True):
            model = self.build()
            # Compiled code is made for one size.
            compiled = self.profile is not None and self.profile.compiled
            self.call(model, shape if compiled else SMALL)()
        return self.call(model, shape)


def annotate(task: str, model: nn.Module, images: int, shape: Shape) -> list[Any]:
    """Return random annotations: boxes with masks, label maps, classes, heatmaps of the codec."""
    if task == 'det':
        from mmdet.testing import demo_mm_inputs

        inputs = demo_mm_inputs(images, (3, *shape), [OBJECTS] * images, with_mask=True)
        for sample in inputs['data_samples']:
            sample.gt_instances.labels.zero_()  # the one class that every detector has
        return inputs['data_samples']
    if task == 'pose':
        from mmpose.testing import get_packed_inputs

        codec = model.head.decoder
        stride = codec.input_size[0] // codec.heatmap_size[0]
        return get_packed_inputs(
            images, num_keypoints=model.head.out_channels, img_shape=shape, input_size=shape[::-1],
            heatmap_size=(shape[1] // stride, shape[0] // stride), with_simcc_label=False,
        )['data_samples']  # fmt: skip
    if task == 'cls':
        from mmpretrain.structures import DataSample

        return [DataSample().set_gt_label(n % model.head.num_classes) for n in range(images)]
    if task == 'video':
        from mmaction.structures import ActionDataSample

        classes = model.cls_head.num_classes
        return [ActionDataSample().set_gt_label(n % classes) for n in range(images)]
    from mmseg.structures import SegDataSample

    maps = torch.randint(model.num_classes, (images, 1, *shape))
    return [SegDataSample(gt_sem_seg=PixelData(data=labels)) for labels in maps]
