_base_ = 'upernet_uniformer-base-global_8xb2-160k_ade20k-512x512.py'

# ImageNet weights trained with token labeling: heads of 32 channels, not 64, and no direct
# address (README.md, "Weights").
model = dict(
    backbone=dict(
        head_dim=32,
        init_cfg=dict(checkpoint='checkpoints/uniformer_base_tl_224.pth', head_dim=32),
    )
)
