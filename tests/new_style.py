"""Configs in mmengine's new style, whose types are classes; some also with types as strings."""

import re

SEGMENTOR = """
from mmcv.transforms import LoadImageFromFile
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmcv.transforms import Resize
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor

from mmuniformer import UniFormer

default_scope = None
model = dict(
    type=EncoderDecoder,
    data_preprocessor=dict(
        type=SegDataPreProcessor,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type=UniFormer, arch='nano', stage3_attn='hybrid', window_size=4),
    decode_head=dict(
        type=FCNHead, in_channels=128, in_index=3, channels=8, num_convs=1, num_classes=4
    ),
    test_cfg=dict(mode='whole'),
)
pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=Resize, scale=(128, 96), keep_ratio=True),
    dict(type=LoadAnnotations),
    dict(type=PackSegInputs),
]
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        type=BaseSegDataset,
        data_root='data/toy/ade/',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        metainfo=dict(
            classes=('background', 'person', 'box', 'ball'),
            palette=[(110, 116, 130), (222, 82, 70), (88, 160, 92), (240, 178, 50)],
        ),
        reduce_zero_label=True,
        pipeline=pipeline,
    ),
)
train_dataloader = test_dataloader
test_evaluator = dict(type=IoUMetric, iou_metrics=['mIoU'])
"""
IMPORTS = {
    'det': """
from mmdet.models import FPN, FocalLoss, L1Loss, RetinaHead, RetinaNet
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
""",
    'seg': """
from mmseg.models import EncoderDecoder, FCNHead
""",
    'pose': """
from mmpose.codecs import MSRAHeatmap
from mmpose.models import HeatmapHead, KeypointMSELoss, TopdownPoseEstimator
""",
}
CONTENT = {
    'det': """
model = dict(
    type=RetinaNet,
    backbone=dict(type=UniFormer, arch='nano'),
    neck=dict(type=FPN, in_channels=[16, 32, 64, 128], out_channels=16, num_outs=4),
    bbox_head=dict(
        type=RetinaHead, num_classes=2, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(
            type=AnchorGenerator, octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
            strides=[4, 8, 16, 32]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss), loss_bbox=dict(type=L1Loss)))
""",
    'seg': """
model = dict(
    type=EncoderDecoder,
    backbone=dict(type=UniFormer, arch='nano'),
    decode_head=dict(
        type=FCNHead, in_channels=128, channels=8, num_convs=1, num_classes=3,
        concat_input=False),
    test_cfg=dict(mode='whole'))
""",
    'pose': """
codec = dict(type=MSRAHeatmap, input_size=(64, 96), heatmap_size=(4, 6), sigma=1)
model = dict(
    type=TopdownPoseEstimator,
    backbone=dict(type=UniFormer, arch='nano', out_indices=(3,)),
    head=dict(
        type=HeatmapHead, in_channels=128, out_channels=3, deconv_out_channels=(8,),
        deconv_kernel_sizes=(4,), loss=dict(type=KeypointMSELoss), decoder=codec))
""",
}
SCOPES = {'det': 'mmdet', 'seg': 'mmseg', 'pose': 'mmpose'}
OWN = 'from mmuniformer.models import UniFormer\n'
INHERITING = """
from mmengine.config import read_base

with read_base():
    from .base import *

model.backbone.update(stage3_attn='hybrid', window_size=2)
"""


def write_new_style(folder, task):
    """Write a base file with classes and a config that inherits from it; return the config."""
    (folder / 'base.py').write_text(IMPORTS[task] + OWN + CONTENT[task])
    (folder / 'new.py').write_text(INHERITING)
    return folder / 'new.py'


def write_with_strings(folder, task):
    """Write the same config with the names of the classes; return its path."""
    text = CONTENT[task].replace('type=UniFormer', "type='mmuniformer.UniFormer'")
    text = re.sub(r'type=(\w+)', rf"type='{SCOPES[task]}.\1'", text)
    changes = "model['backbone'].update(stage3_attn='hybrid', window_size=2)\n"
    (folder / 'strings.py').write_text(f"default_scope = '{SCOPES[task]}'\n{text}{changes}")
    return folder / 'strings.py'
