"""AdamW in fp32 for 110 epochs; the learning rate is for 8 GPUs x 32 videos."""

_base_ = 'schedule_110e.py'

lr = 8e-4
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(lr=lr, weight_decay=0.1))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
auto_scale_lr = dict(base_batch_size=256)
del lr
