"""Trains from scratch in minutes on two CPU cores; shows that everything works, not how well."""

_base_ = [
    '../_base_/classifier_uniformer.py',
    '../_base_/toy_64.py',
    '../_base_/schedule_300e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(arch='nano'),
    head=dict(num_classes=3, in_channels=128, loss=dict(num_classes=3)),
    data_preprocessor=dict(num_classes=3),
    train_cfg=None,
)
max_epochs, lr = 12, 1e-3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=lr))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min=1e-5, by_epoch=True)]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_epochs))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
del max_epochs, lr
