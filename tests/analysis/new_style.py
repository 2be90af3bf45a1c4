"""The same config twice: with types as strings, and in mmengine's new style with classes."""

import re

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
