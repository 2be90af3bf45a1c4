"""Light UniFormer-XXS, whose class token has a classifier of its own in training."""

_base_ = 'recognizer_uniformer.py'

model = dict(
    backbone=dict(type='mmuniformer.UniFormerLight3D', arch='xxs', out_cls_token=True),
    cls_head=dict(
        _delete_=True,
        type='mmuniformer.LightClsHead',
        num_classes=400,
        in_channels=448,
        label_smooth=0.1,
    ),
)
