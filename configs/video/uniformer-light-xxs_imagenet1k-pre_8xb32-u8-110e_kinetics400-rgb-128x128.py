_base_ = [
    '_base_/recognizer_uniformer-light.py',
    '_base_/kinetics400_u16-128.py',
    '_base_/schedule_110e-light.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        layer_scale_init_value=0.1,
        drop_path_rate=0.05,
        init_cfg=dict(checkpoint='checkpoints/uniformer_xxs_128_in1k.pth'),
    ),
)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1].update(clip_len=8)
test_pipeline[1].update(clip_len=8)
train_pipeline[3]['transforms'][0]['policy'] = 'rand'
val_pipeline = test_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
lr = 4e-4
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
del lr
