"""AdamW in mixed precision for 25 epochs; the learning rate is for 8 GPUs x 16 videos."""

_base_ = 'schedule_110e.py'

lr = 5e-5
train_cfg = dict(max_epochs=25)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr, end=5)
param_scheduler[1].update(begin=5, end=25)
auto_scale_lr = dict(base_batch_size=128)
del lr
