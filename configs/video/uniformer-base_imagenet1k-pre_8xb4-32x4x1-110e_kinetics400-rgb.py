_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/kinetics400_32x4.py',
    '_base_/schedule_110e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.3,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_base_in1k.pth'
        ),
    ),
)
