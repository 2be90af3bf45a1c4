_base_ = [
    '_base_/upernet_uniformer.py',
    '_base_/ade20k.py',
    '_base_/schedule_160k.py',
    '_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.25,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_small_in1k.pth'
        ),
    )
)
