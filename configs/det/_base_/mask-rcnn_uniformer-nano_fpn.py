"""Mask R-CNN small enough to learn the toy scenes on two CPU cores: nano backbone, thin heads."""

_base_ = 'mask-rcnn_uniformer_fpn.py'

strides = [4, 8, 16, 32]
model = dict(
    backbone=dict(arch='nano', window_size=7, drop_path_rate=0.0),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32, num_outs=4, norm_cfg=dict(type='BN')),
    rpn_head=dict(
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(scales=[6], strides=strides),
    ),
    roi_head=dict(
        # One sample a bin: RoIAlign's backward pass runs on one core.
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=32, finest_scale=28),
        bbox_head=dict(in_channels=32, fc_out_channels=128, num_classes=3),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=1), out_channels=32),
        mask_head=dict(
            num_convs=2,
            in_channels=32,
            conv_out_channels=32,
            norm_cfg=dict(type='BN'),
            num_classes=3,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)),
)
del strides
