_base_ = 'td-hm_uniformer-small_8xb128-210e_coco-256x192.py'

# ImageNet weights trained with token labeling: heads of 32 channels, not 64, and no direct
# address (README.md, "Weights").
model = dict(
    backbone=dict(
        head_dim=32,
        init_cfg=dict(checkpoint='checkpoints/uniformer_small_tl_224.pth', head_dim=32),
    )
)
