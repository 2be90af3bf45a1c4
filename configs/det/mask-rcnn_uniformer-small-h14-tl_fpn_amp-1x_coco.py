_base_ = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco.py'

# ImageNet weights trained with token labeling: heads of 32 channels, not 64, and no direct
# address (README.md, "Weights").
model = dict(
    backbone=dict(
        head_dim=32,
        init_cfg=dict(checkpoint='checkpoints/uniformer_small_tl_224.pth', head_dim=32),
    )
)
