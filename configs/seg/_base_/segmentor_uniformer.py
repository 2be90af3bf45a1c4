"""Shared by UperNet and Semantic FPN: images, and UniFormer-S with a global stage 3."""

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(
        type='mmuniformer.UniFormer',
        arch='small',
        # 'global', 'window' or 'hybrid': one checkpoint serves all, by
        # model.backbone.stage3_attn=window model.backbone.window_size=32
        stage3_attn='global',
        window_size=32,
        # another file: model.backbone.init_cfg.checkpoint=PATH; from scratch: ...checkpoint=none
        init_cfg=dict(type='Pretrained', checkpoint=None),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
