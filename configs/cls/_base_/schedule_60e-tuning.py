"""AdamW in mixed precision at a constant rate for 60 epochs: fine-tuning, 8 GPUs x 64 images."""

_base_ = 'schedule_300e.py'

train_cfg = dict(max_epochs=60)
optim_wrapper = dict(optimizer=dict(lr=5e-6, weight_decay=1e-8))
param_scheduler = []
auto_scale_lr = dict(base_batch_size=512)
