_base_ = [
    '_base_/recognizer_uniformer.py',
    '_base_/kinetics600_16x4.py',
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
    cls_head=dict(num_classes=600),
    data_preprocessor=dict(blending=dict(num_classes=600)),
)
lr = 3e-4
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
train_dataloader = dict(batch_size=12)
auto_scale_lr = dict(base_batch_size=96)
del lr
