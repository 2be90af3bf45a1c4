_base_ = 'td-hm_uniformer-small_8xb128-210e_coco-256x192.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.4,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_base_in1k.pth'
        ),
    )
)
