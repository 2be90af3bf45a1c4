_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/sthv2_u32.py',
    '_base_/schedule_50e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='checkpoints/uniformer_base_k600_16x4.pth'),
    ),
    cls_head=dict(num_classes=174),
    data_preprocessor=dict(blending=dict(num_classes=174)),
)
