"""Baselines: backbones of the frameworks in place of ours, at equal input and head."""

from __future__ import annotations

import copy
import importlib.util
from fnmatch import fnmatch
from typing import Any, NamedTuple

from mmengine.config import Config

from mmuniformer.analysis.benchmark.cases import Case, Settings
from mmuniformer.analysis.benchmark.report import Row
from mmuniformer.analysis.layouts import backbone_settings
from mmuniformer.apis.config import framework_of
from mmuniformer.apis.models import build_model

HEADS = ('decode_head', 'auxiliary_head', 'head')
"""Parts that take the backbone's maps where there is no neck."""
CONVNEXT = {'type': 'mmpretrain.ConvNeXt', 'arch': 'tiny', 'gap_before_final_norm': False}


class Baseline(NamedTuple):
    """Another backbone."""

    name: str
    backbone: dict[str, Any]  # a type without scope is that of the task's framework
    channels: tuple[int, int, int, int]
    published: dict[str, str]  # accuracy in place of ours, and by whom; by pattern of the config
    package: str | None = None  # what it needs beyond the task's framework


BASELINES = (
    Baseline('Swin-T', {'type': 'SwinTransformer'}, (96, 192, 384, 768), {
        'mask-rcnn_*1x_coco': '42.7 box AP, 39.3 mask AP (MMDetection)',
        'mask-rcnn_*ms-crop-3x_coco': '46.0 box AP, 41.6 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '44.41 mIoU (MMSegmentation)',
        'td-hm_*coco-256x192': '72.4 AP (MMPose)',
    }),
    Baseline('ConvNeXt-T', CONVNEXT, (96, 192, 384, 768), {
        'mask-rcnn_*ms-crop-3x_coco': '46.2 box AP, 41.7 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '46.11 mIoU (MMSegmentation)',
    }, package='mmpretrain'),
    Baseline('ResNet-50', {'type': 'ResNet', 'depth': 50}, (256, 512, 1024, 2048), {
        'mask-rcnn_*1x_coco': '38.2 box AP, 34.7 mask AP (MMDetection)',
        'upernet_*160k_ade20k-512x512': '42.05 mIoU (MMSegmentation)',
        'td-hm_*coco-256x192': '71.8 AP (MMPose)',
        'td-hm_*coco-384x288': '73.1 AP (MMPose)',
    }),
)  # fmt: skip


def baseline_cases(cfg: Config, settings: Settings) -> tuple[list[Case], list[Row]]:
    """Return the baselines in place of a config's backbone, and rows for those not installed."""
    cases, absent = [], []
    for baseline in BASELINES:
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
    ours = build_model(bare, device='meta').embed_dims
    channels = dict(zip(ours, baseline.channels, strict=True))
    for reader in [model.neck] if model.get('neck') else [model[k] for k in HEADS if k in model]:
        taken = reader.in_channels
        several = isinstance(taken, (list, tuple))
        reader.in_channels = [channels[n] for n in taken] if several else channels[taken]
    kind = baseline.backbone['type']
    scoped = kind if '.' in kind else f'{cfg.default_scope}.{kind}'
    out_indices = backbone.get('out_indices', (0, 1, 2, 3))
    backbone.clear()
    backbone.update(baseline.backbone, type=scoped, out_indices=out_indices)
    if baseline.package:
        cfg.custom_imports = {'imports': [f'{baseline.package}.models']}
    return cfg
