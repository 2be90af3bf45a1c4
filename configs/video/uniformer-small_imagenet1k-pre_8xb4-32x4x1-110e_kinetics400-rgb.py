_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/kinetics400_32x4.py',
    '_base_/schedule_110e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_small_in1k.pth'
        ),
    ),
)
