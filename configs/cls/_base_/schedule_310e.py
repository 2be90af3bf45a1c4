"""AdamW in mixed precision for 310 epochs, the last 10 of them at the lowest rate, 1e-5.

The learning rate is for 8 GPUs x 128 images.
"""

_base_ = 'schedule_300e.py'

lr = 1.6e-3
train_cfg = dict(max_epochs=310)
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
param_scheduler[1].update(end=310)
del lr
