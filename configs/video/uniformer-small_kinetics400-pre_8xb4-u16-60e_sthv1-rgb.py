_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/sthv1_u16.py',
    '_base_/schedule_60e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1/'
            'uniformer-small_imagenet1k-pre_16x4x1_kinetics400-rgb_20221219-c630a037.pth'
        ),
    ),
    cls_head=dict(num_classes=174),
    data_preprocessor=dict(blending=dict(num_classes=174)),
)
