_base_ = [
    '_base_/fpn_uniformer.py',
    '_base_/ade20k_multiple-of-32.py',
    '_base_/schedule_80k.py',
    '_base_/seg_runtime.py',
]

# The ImageNet weights have no direct address: README.md, "Weights", says where to get the file.
# Put it at this path or name another: model.backbone.init_cfg.checkpoint=PATH
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmuniformer.UniFormerLight',
        arch='xs',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/uniformer_xs_224_in1k.pth'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
