"""What a benchmark runs: a network in one form, its inputs, and the call that is measured."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from mmuniformer.analysis.benchmark.profiles import INFERENCE, TRAINING, Profile
from mmuniformer.analysis.benchmark.samples import SAMPLES
from mmuniformer.apis.config import scope_of
from mmuniformer.apis.models import build_model, build_module

SEED = 0
SMALL = (64, 64)
"""Size of the call that loads libraries before memory is measured."""


@dataclass(frozen=True)
class Settings:
    """How a benchmark is run; recorded beside its figures."""

    task: str
    """backbone, det, seg or pose."""
    config: str
    checkpoint: str | None
    shapes: tuple[tuple[int, int], ...]
    """Heights and widths of the images."""
    batch_size: int
    repeats: int
    """From 0: no time is taken then."""
    mode: str
    """inference or training (forward and backward)."""
    device: str
    operators: bool = False
    """Whether the time is also told by kinds of operators."""


@dataclass(frozen=True)
class Case:
    """A network to measure: one of ours in a profile and layout, or one to compare it with."""

    name: str
    cfg: Config
    """With a whole model; of it only ``model.backbone`` is run where the task is backbone."""
    layout: str = ''
    profile: Profile | None = None
    """None for networks that are not ours."""
    published: str = ''
    """Accuracy that others state for it, and who."""


def build(case: Case, settings: Settings) -> nn.Module:
    """Build what is run of a case: with the same weights in every profile."""
    cfg = case.cfg
    import_modules_from_strings(**cfg.get('custom_imports', {'imports': []}))
    torch.manual_seed(SEED)
    with quiet():
        if settings.task == 'backbone':
            with scope_of(cfg):
                model = build_module(cfg.model.backbone).to(settings.device)
        else:
            checkpoint = settings.checkpoint if case.profile else None
            model = build_model(cfg, checkpoint, settings.device)
    if case.profile:
        # BatchNorm can be folded in evaluation only.
        case.profile.prepare(model.eval(), settings.mode)
    # Not chained: some backbones of the frameworks return nothing.
    model.train(settings.mode == TRAINING)
    if settings.mode == TRAINING:
        allocate_gradients(model)
    return model


def allocate_gradients(model: nn.Module) -> None:
    """Give parameters gradients of 0: the same memory in all profiles, and no activations."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def make_inputs(
    case: Case, model: nn.Module, settings: Settings, shape: Sequence[int]
) -> tuple[Tensor, list[Any] | None]:
    """Return normalized images and, where the task has any, their annotations."""
    torch.manual_seed(SEED)
    channels = case.cfg.model.backbone.get('in_channels', 3)
    images = torch.randn(settings.batch_size, channels, *shape, device=settings.device)
    annotate = SAMPLES.get(settings.task)
    return images, annotate and annotate(case.cfg, model, images)


def make_call(
    case: Case, model: nn.Module, settings: Settings, shape: Sequence[int]
) -> Callable[[], Any]:
    """Return the call to measure, its inputs at hand."""
    images, samples = make_inputs(case, model, settings, shape)
    if settings.mode == INFERENCE:
        return functools.partial(infer, model, images, samples, settings.task)
    step = train_backbone if settings.task == 'backbone' else train_model
    return functools.partial(step, model, images, samples)


def infer(model: nn.Module, images: Tensor, samples: list[Any] | None, task: str) -> Any:
    """Run a network forward, as far as its cost does not depend on what it finds.

    A segmentor: to the label map. A detector: heads on 1,000 proposals, masks on 100, without the
    choice among boxes. A pose estimator: to heatmaps.
    """
    with torch.inference_mode():
        if task == 'backbone':
            return model(images)
        if task == 'seg':
            return model(images, mode='predict')
        return model(images, samples, mode='tensor')


def train_backbone(model: nn.Module, images: Tensor, samples: None) -> None:
    """Run a backbone forward and backward, for the loss ``sum(out ** 2) / 2``."""
    outs = model(images)
    torch.autograd.backward(outs, [out.detach() for out in outs])
    model.zero_grad(set_to_none=False)


def train_model(model: nn.Module, images: Tensor, samples: list[Any]) -> None:
    """Run a framework's model forward and backward."""
    model.parse_losses(model.loss(images, samples))[0].backward()
    model.zero_grad(set_to_none=False)


def make_outputs(case: Case, model: nn.Module, settings: Settings, shape: Sequence[int]) -> Any:
    """Return tensors that should be alike in all profiles.

    Maps of the backbone; of the neck for a detector, whose proposals turn on small differences;
    scores of segmentors and heatmaps; in training the losses.
    """
    images, samples = make_inputs(case, model, settings, shape)
    torch.manual_seed(SEED)
    with torch.no_grad():
        if settings.task == 'backbone':
            return model(images)
        if settings.mode == TRAINING:
            losses = model.parse_losses(model.loss(images, samples))[1]
            return [value for name, value in losses.items() if 'loss' in name]
        if settings.task == 'det':
            return model.extract_feat(images)
        return model(images, samples, mode='tensor')


def prepare_call(case: Case, settings: Settings, shape: Sequence[int]) -> Callable[[], Any]:
    """Build a model and return the call to measure, for a fresh process."""
    model = build(case, settings)
    # Compiled code is made for one size.
    compiled = case.profile is not None and case.profile.compiled
    make_call(case, model, settings, shape if compiled else SMALL)()
    return make_call(case, model, settings, shape)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the frameworks' own tables and their warnings about themselves off the screen."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', module='mm(det|seg|pose|cv|engine|pretrain)')
        try:
            yield
        finally:
            logger.setLevel(level)
