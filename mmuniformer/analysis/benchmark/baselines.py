"""Other backbones to measure beside ours: those of the frameworks, at equal input and head."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmuniformer.analysis.benchmark.cases import Case
from mmuniformer.analysis.benchmark.report import Absent
from mmuniformer.analysis.metafile import load_models
from mmuniformer.apis.config import find_config
from mmuniformer.apis.models import build_model

HEADS = ('decode_head', 'auxiliary_head', 'head')
"""Parts that take the backbone's maps where there is no neck."""

METRICS = ('box AP', 'mask AP', 'mIoU', 'AP')
"""Those of the metafiles that tables show."""


@dataclass(frozen=True)
class Rival:
    """Another backbone."""

    name: str
    backbone: Mapping[str, Any]
    """Its config; the type without scope is the task's framework's."""
    channels: tuple[int, int, int, int]
    published: Mapping[str, str] = field(default_factory=dict)
    """Accuracy in place of ours, by pattern of the config's name, and who states it."""
    needs: str | None = None
    """A package beyond the task's framework."""


RIVALS = (
    Rival(
        'Swin-T',
        {'type': 'SwinTransformer'},
        (96, 192, 384, 768),
        {
            'mask-rcnn_*1x_coco': '42.7 box AP, 39.3 mask AP (MMDetection)',
            'mask-rcnn_*ms-crop-3x_coco': '46.0 box AP, 41.6 mask AP (MMDetection)',
            'upernet_*160k_ade20k-512x512': '44.41 mIoU (MMSegmentation)',
            'td-hm_*coco-256x192': '72.4 AP (MMPose)',
        },
    ),
    Rival(
        'ConvNeXt-T',
        {'type': 'mmpretrain.ConvNeXt', 'arch': 'tiny', 'gap_before_final_norm': False},
        (96, 192, 384, 768),
        {
            'mask-rcnn_*ms-crop-3x_coco': '46.2 box AP, 41.7 mask AP (MMDetection)',
            'upernet_*160k_ade20k-512x512': '46.11 mIoU (MMSegmentation)',
        },
        needs='mmpretrain',
    ),
    Rival(
        'ResNet-50',
        {'type': 'ResNet', 'depth': 50},
        (256, 512, 1024, 2048),
        {
            'mask-rcnn_*1x_coco': '38.2 box AP, 34.7 mask AP (MMDetection)',
            'upernet_*160k_ade20k-512x512': '42.05 mIoU (MMSegmentation)',
            'td-hm_*coco-256x192': '71.8 AP (MMPose)',
            'td-hm_*coco-384x288': '73.1 AP (MMPose)',
        },
    ),
)


def rival_cases(cfg: Config, name: str) -> tuple[list[Case], list[Absent]]:
    """Return the other networks in place of a config's, and those that can't be built here.

    Args:
        cfg: Config with one of our backbones.
        name: The config's name.
    """
    cases, absent = [], []
    for rival in RIVALS:
        if rival.needs and importlib.util.find_spec(rival.needs) is None:
            absent.append(Absent(rival.name, f'not installed: {rival.needs}'))
            continue
        stated = (text for pattern, text in rival.published.items() if fnmatch(name, pattern))
        cases.append(Case(rival.name, in_place(cfg, rival), published=next(stated, '')))
    return cases, absent


def in_place(cfg: Config, rival: Rival) -> Config:
    """Return a config with another backbone, and a neck or heads that take its maps."""
    cfg = copy.deepcopy(cfg)
    model, scope = cfg.model, cfg.setdefault('default_scope', 'mmdet')
    ours = build_model(Config({'model': model.backbone}), device='meta').embed_dims
    channels = dict(zip(ours, rival.channels, strict=True))
    readers = [model.neck] if model.get('neck') else [model[k] for k in HEADS if k in model]
    for reader in readers:
        taken = reader.in_channels
        several = isinstance(taken, (list, tuple))
        reader.in_channels = [channels[n] for n in taken] if several else channels[taken]
    kind = rival.backbone['type']
    model.backbone = {
        **rival.backbone,
        'type': kind if '.' in kind else f'{scope}.{kind}',
        'out_indices': model.backbone.get('out_indices', (0, 1, 2, 3)),
    }
    if rival.needs:
        cfg.custom_imports = {'imports': [f'{rival.needs}.models']}
    return cfg


def published_of_ours(config: str, layout: str) -> str:
    """Return what the metafile beside a config says of its accuracy in a layout."""
    file = find_config(config)
    metafile = file.with_name('metafile.yml')
    for model in load_models(metafile) if metafile.is_file() else ():
        figures = model['Metadata']
        is_row = Path(model['Config']).name == file.name
        if is_row and figures.get('Test Layout') in (None, layout):
            named = ', '.join(
                f'{value} {name}'
                for result in model.get('Results', ())
                for name, value in result['Metrics'].items()
                if name in METRICS
            )
            return f'{named} ({figures["Provenance"]})'
    return ''
