"""Trains from scratch in minutes on two CPU cores; shows that everything works, not how well."""

_base_ = [
    '../_base_/recognizer_uniformer.py',
    '../_base_/toy_u4.py',
    '../_base_/schedule_110e.py',
    '../_base_/video_runtime.py',
]

model = dict(
    backbone=dict(arch='nano', init_cfg=None),
    cls_head=dict(num_classes=6, in_channels=128, label_smooth_eps=0.0),
    data_preprocessor=dict(blending=None),
)
max_epochs = 10
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=2e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=0.01, end=1)
param_scheduler[1].update(begin=1, end=max_epochs)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
del max_epochs
