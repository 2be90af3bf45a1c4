"""Light UniFormer-XS, whose class token has a classifier of its own in training, 1000 classes."""

_base_ = 'classifier_uniformer.py'

model = dict(
    backbone=dict(
        type='mmuniformer.UniFormerLight', arch='xs', out_cls_token=True, cls_token_std=0.0
    ),
    neck=None,
    head=dict(
        _delete_=True,
        type='mmuniformer.LightClsHead',
        num_classes=1000,
        in_channels=512,
        label_smooth=0.1,
    ),
)
