_base_ = [
    '_base_/mask-rcnn_uniformer_fpn.py',
    '_base_/coco_instance.py',
    '_base_/schedule_1x.py',
    '_base_/det_runtime.py',
]

# Trained in fp32. The ImageNet weights have no direct address: README.md, "Weights", says where
# to get the file. Put it at this path or name another: model.backbone.init_cfg.checkpoint=PATH
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmuniformer.UniFormerLight',
        arch='xs',
        drop_path_rate=0.15,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/uniformer_xs_224_in1k.pth'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
