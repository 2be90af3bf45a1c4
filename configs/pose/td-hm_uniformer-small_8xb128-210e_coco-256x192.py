_base_ = [
    '_base_/td-hm_uniformer.py',
    '_base_/coco_256x192.py',
    '_base_/schedule_210e.py',
    '_base_/pose_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_small_in1k.pth'
        ),
    ),
    head=dict(decoder=_base_.codec),
)
