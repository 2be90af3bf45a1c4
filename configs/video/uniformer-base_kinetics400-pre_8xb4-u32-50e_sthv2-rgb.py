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
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1/'
            'uniformer-base_imagenet1k-pre_16x4x1_kinetics400-rgb_20221219-157c2e66.pth'
        ),
    ),
    cls_head=dict(num_classes=174),
    data_preprocessor=dict(blending=dict(num_classes=174)),
)
