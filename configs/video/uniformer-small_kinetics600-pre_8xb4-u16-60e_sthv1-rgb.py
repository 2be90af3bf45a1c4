_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/sthv1_u16.py',
    '_base_/schedule_60e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='checkpoints/uniformer_small_k600_16x4.pth'),
    ),
    cls_head=dict(num_classes=174),
    data_preprocessor=dict(blending=dict(num_classes=174)),
)
