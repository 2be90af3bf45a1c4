"""Semantic FPN small enough to learn the toy scenes on two CPU cores."""

_base_ = 'fpn_uniformer.py'

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='nano'),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=48),
    decode_head=dict(in_channels=[48, 48, 48, 48], channels=48, num_classes=4),
)
