_base_ = [
    '_base_/recognizer_uniformer-light.py',
    '_base_/kinetics400_u16-192.py',
    '_base_/schedule_110e-light.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        arch='xs',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='checkpoints/uniformer_xs_192_in1k.pth'),
    ),
    cls_head=dict(in_channels=512),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(clip_len=32)
test_pipeline[1].update(clip_len=32)
val_pipeline = test_pipeline
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
lr = 4e-4
optim_wrapper = dict(optimizer=dict(lr=lr, weight_decay=0.05))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
auto_scale_lr = dict(base_batch_size=128)
del lr
