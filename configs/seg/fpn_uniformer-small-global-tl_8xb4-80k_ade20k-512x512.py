_base_ = 'fpn_uniformer-small-global_8xb4-80k_ade20k-512x512.py'

# ImageNet weights trained with token labeling: heads of 32 channels, not 64, and no direct
# address (README.md, "Weights").
model = dict(
    backbone=dict(
        head_dim=32,
        init_cfg=dict(checkpoint='checkpoints/uniformer_small_tl_224.pth', head_dim=32),
    )
)
