_base_ = 'cascade-mask-rcnn_uniformer-small-h14_fpn_amp-ms-crop-3x_coco.py'

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
