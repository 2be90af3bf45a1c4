_base_ = [
    '_base_/mask-rcnn_uniformer_fpn.py',
    '_base_/coco_instance_ms-crop.py',
    '_base_/schedule_3x.py',
    '_base_/det_runtime.py',
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
# mixed precision, fp16 with a dynamic loss scale
optim_wrapper = dict(type='AmpOptimWrapper')
