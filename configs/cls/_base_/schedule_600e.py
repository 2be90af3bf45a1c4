"""AdamW in fp32 for 600 epochs; the learning rate is for 8 GPUs x 512 images."""

_base_ = 'schedule_300e.py'

lr = 4e-3
train_cfg = dict(max_epochs=600)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(lr=lr),
    # The class token, which is not 1-D, has no decay either.
    paramwise_cfg=dict(custom_keys={'cls_token': dict(decay_mult=0.0)}),
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr, end=31)
param_scheduler[1].update(begin=30, end=600, T_max=600)
auto_scale_lr = dict(base_batch_size=4096)
del lr
