_base_ = [
    '_base_/fpn_uniformer.py',
    '_base_/ade20k_multiple-of-32.py',
    '_base_/schedule_80k.py',
    '_base_/seg_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_small_in1k.pth'
        ),
    )
)
