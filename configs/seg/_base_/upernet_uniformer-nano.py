"""UperNet small enough to learn the toy scenes on two CPU cores."""

_base_ = 'upernet_uniformer.py'

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(arch='nano'),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=32, num_classes=4),
    auxiliary_head=dict(in_channels=64, channels=32, num_classes=4),
)
