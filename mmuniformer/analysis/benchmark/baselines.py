"""Baselines: backbones of the frameworks in place of ours, at equal input and head."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any, NamedTuple

from mmengine.config import Config

from mmuniformer.analysis.benchmark.cases import Case, Settings
from mmuniformer.analysis.benchmark.report import Row
from mmuniformer.analysis.layouts import backbone_settings
from mmuniformer.apis.config import framework_of
from mmuniformer.apis.models import build_model
from mmuniformer.models.base import StagedBackbone

HEADS = ('decode_head', 'auxiliary_head', 'head', 'cls_head')
"""Parts that take the backbone's maps where no neck changes their channels."""
SWIN_3D = {
    'type': 'SwinTransformer3D', 'arch': 'tiny', 'patch_size': (2, 4, 4), 'window_size': (8, 7, 7),
    'pretrained2d': False,
}  # fmt: skip
SLOW_ONLY = {
    'type': 'ResNet3dSlowOnly', 'depth': 50, 'pretrained': None, 'lateral': False,
    'conv1_kernel': (1, 7, 7), 'conv1_stride_t': 1, 'pool1_stride_t': 1, 'inflate': (0, 0, 1, 1),
    'norm_eval': False,
}  # fmt: skip
CONVNEXT = {'type': 'mmpretrain.ConvNeXt', 'arch': 'tiny', 'gap_before_final_norm': False}


class Baseline(NamedTuple):
    """Another backbone."""

    name: str
    # A type without scope is that of the task's framework; some follow our backbone.
    backbone: dict[str, Any] | Callable[[StagedBackbone], dict[str, Any]]
    channels: tuple[int, int, int, int] | None  # None: as ours
    published: dict[str, str]  # accuracy in place of ours, and by whom; by pattern of the config
    package: str | None = None  # what it needs beyond the task's framework
    of_mmpretrain: tuple[tuple[str, Any], ...] = ()  # settings that its class there has


def uniformer_of_mmaction(ours: StagedBackbone) -> dict[str, Any]:
    """Return mmaction2's own UniFormer of the same stages as ours."""
    stages = {'depth': list(ours.depths), 'embed_dim': list(ours.embed_dims)}
    return {'type': 'UniFormer', **stages, 'head_dim': ours.head_dim, 'pretrained2d': False}


BASELINES = (
    Baseline('Swin-T', {'type': 'SwinTransformer'}, (96, 192, 384, 768), {
        'mask-rcnn_*1x_coco': '42.7 box AP, 39.3 mask AP (MMDetection)',
        'mask-rcnn_*ms-crop-3x_coco': '46.0 box AP, 41.6 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '44.41 mIoU (MMSegmentation)',
        'td-hm_*coco-256x192': '72.4 AP (MMPose)',
        'uniformer-*300e_in1k': '81.18 Top 1 Accuracy (MMPretrain)',
    }, of_mmpretrain=(('pad_small_map', True),)),
    Baseline('ConvNeXt-T', CONVNEXT, (96, 192, 384, 768), {
        'mask-rcnn_*ms-crop-3x_coco': '46.2 box AP, 41.7 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '46.11 mIoU (MMSegmentation)',
        'uniformer-*300e_in1k': '82.14 Top 1 Accuracy (MMPretrain)',
    }, package='mmpretrain'),
    Baseline('ResNet-50', {'type': 'ResNet', 'depth': 50}, (256, 512, 1024, 2048), {
        'mask-rcnn_*1x_coco': '38.2 box AP, 34.7 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '42.05 mIoU (MMSegmentation)',
        'td-hm_*coco-256x192': '71.8 AP (MMPose)',
        'td-hm_*coco-384x288': '73.1 AP (MMPose)',
        'uniformer-*300e_in1k': '76.55 Top 1 Accuracy (MMPretrain)',
    }),
)  # fmt: skip
CLIP_BASELINES = (
    Baseline('UniFormer of MMAction2', uniformer_of_mmaction, None, {}),
    Baseline('VideoSwin-T', SWIN_3D, (96, 192, 384, 768), {
        '*kinetics400-rgb': '78.90 Top 1 Accuracy at 32x2x1, 4 clips x 3 crops (MMAction2)',
    }),
    Baseline('SlowOnly-50', SLOW_ONLY, (256, 512, 1024, 2048), {
        '*kinetics400-rgb': '74.82 Top 1 Accuracy at 8x8x1, 10 clips x 3 crops (MMAction2)',
    }),
)  # fmt: skip
"""In place of networks for clips; their results are of lengths and views of their own."""


def baseline_cases(cfg: Config, settings: Settings) -> tuple[list[Case], list[Row]]:
    """Return the baselines in place of a config's backbone, and rows for those not installed."""
    cases, absent = [], []
    for baseline in CLIP_BASELINES if framework_of(cfg) == 'mmaction' else BASELINES:
        name, package = baseline.name, baseline.package
        if package and importlib.util.find_spec(package) is None:
            absent.append(Row(name, published=f'not installed: {package}'))
        else:
            stated = (v for key, v in baseline.published.items() if fnmatch(settings.config, key))
            replaced = in_place(cfg, baseline)
            cases.append(Case(name, replaced, settings, published=next(stated, None)))
    return cases, absent


def in_place(cfg: Config, baseline: Baseline) -> Config:
    """Return a config with another backbone, and a neck or heads that take its maps."""
    cfg = copy.deepcopy(cfg)
    model, backbone = cfg.model, backbone_settings(cfg)
    cfg.default_scope = framework_of(cfg) or 'mmdet'
    bare = Config({'model': backbone, 'default_scope': cfg.default_scope})
    ours = build_model(bare, device='meta')
    channels = dict(zip(ours.embed_dims, baseline.channels or ours.embed_dims, strict=True))
    necks = [model.neck] if 'in_channels' in (model.get('neck') or {}) else []
    for reader in necks or [model[name] for name in HEADS if name in model]:
        taken = reader.in_channels
        several = isinstance(taken, (list, tuple))
        reader.in_channels = [channels[n] for n in taken] if several else channels[taken]
    theirs = baseline.backbone(ours) if callable(baseline.backbone) else baseline.backbone
    kind = theirs['type']
    scoped = kind if '.' in kind else f'{cfg.default_scope}.{kind}'
    # Networks for clips give their last map alone, as their recognizers take it.
    indices = {'out_indices': backbone.get('out_indices', (0, 1, 2, 3))} if ours.dims == 2 else {}
    backbone.clear()
    backbone.update(theirs, type=scoped, **indices)
    if scoped.startswith('mmpretrain.'):
        backbone.update(dict(baseline.of_mmpretrain))
    if baseline.package:
        cfg.custom_imports = {'imports': [f'{baseline.package}.models']}
    return cfg
