"""Trains from scratch in minutes on two CPU cores; shows that everything works, not how well."""

_base_ = [
    '../_base_/td-hm_uniformer-nano.py',
    '../_base_/toy_128x96.py',
    '../_base_/schedule_210e.py',
    '../_base_/pose_runtime.py',
]

max_epochs = 40
model = dict(head=dict(decoder=_base_.codec))
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=4e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(logger=dict(interval=12), checkpoint=dict(interval=max_epochs))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
del max_epochs
