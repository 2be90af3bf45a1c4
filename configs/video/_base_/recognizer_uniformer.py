"""UniFormer-S in mmaction2's recognizer, 400 classes."""

num_classes = 400
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='mmuniformer.UniFormer3D',
        arch='small',
        # another file: model.backbone.init_cfg.checkpoint=PATH; from scratch: ...checkpoint=none
        init_cfg=dict(type='Pretrained', checkpoint=None),
    ),
    cls_head=dict(
        type='I3DHead',
        num_classes=num_classes,
        in_channels=512,
        dropout_ratio=0.0,
        init_std=0.02,
        label_smooth_eps=0.1,
        # Logits of views are summed, as published.
        average_clips='score',
    ),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[114.75, 114.75, 114.75],
        std=[57.375, 57.375, 57.375],
        format_shape='NCTHW',
        blending=dict(type='mmuniformer.BatchMix', num_classes=num_classes),
    ),
)
del num_classes
