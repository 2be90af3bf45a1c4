"""Top-down heatmaps: UniFormer-S, stage 4 alone, and three deconvolutions of 256."""

model = dict(
    type='TopdownPoseEstimator',
    data_preprocessor=dict(
        type='PoseDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='mmuniformer.UniFormer',
        arch='small',
        stage3_attn='global',
        # The head reads stage 4: norms of other stages would never get a gradient.
        out_indices=(3,),
        # another file: model.backbone.init_cfg.checkpoint=PATH; from scratch: ...checkpoint=none
        init_cfg=dict(type='Pretrained', checkpoint=None),
    ),
    head=dict(
        type='HeatmapHead',
        in_channels=512,
        out_channels=17,
        deconv_out_channels=(256, 256, 256),
        deconv_kernel_sizes=(4, 4, 4),
        final_layer=dict(kernel_size=1),
        loss=dict(type='KeypointMSELoss', use_target_weight=True),
    ),
    test_cfg=dict(flip_test=True, flip_mode='heatmap', shift_heatmap=True),
)
