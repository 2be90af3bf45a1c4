"""AdamW in mixed precision for 100 epochs; the learning rate is for 8 GPUs x 16 videos."""

_base_ = 'schedule_110e.py'

lr = 4e-4
train_cfg = dict(max_epochs=100)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr, end=10)
param_scheduler[1].update(begin=10, end=100)
auto_scale_lr = dict(base_batch_size=128)
del lr
