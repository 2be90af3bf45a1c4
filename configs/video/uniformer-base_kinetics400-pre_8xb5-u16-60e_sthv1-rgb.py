_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/sthv1_u16.py',
    '_base_/schedule_60e.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.6,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmaction/v1.0/recognition/uniformerv1/'
            'uniformer-base_imagenet1k-pre_16x4x1_kinetics400-rgb_20221219-157c2e66.pth'
        ),
    ),
    cls_head=dict(num_classes=174),
    data_preprocessor=dict(blending=dict(num_classes=174)),
)
lr = 2.5e-4
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
train_dataloader = dict(batch_size=5)
auto_scale_lr = dict(base_batch_size=40)
del lr
