"""A config of MMEngine's new style: plain Python whose types are classes."""

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
