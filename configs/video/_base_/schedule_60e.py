"""AdamW in mixed precision for 60 epochs; the learning rate is for 8 GPUs x 4 videos."""

_base_ = 'schedule_110e.py'

lr = 2e-4
train_cfg = dict(max_epochs=60)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr, end=5)
param_scheduler[1].update(begin=5, end=60)
auto_scale_lr = dict(base_batch_size=32)
del lr
