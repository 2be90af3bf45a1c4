_base_ = 'upernet_uniformer-small-global_8xb2-160k_ade20k-512x512.py'

# One GPU: 4 batches of 4 images a step stand for 8 GPUs x 2, so the iterations are 4 times as many.
# BatchNorm in the heads sees 4 images at a time instead of 16.
accumulate = 4
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(accumulative_counts=accumulate)
train_cfg = dict(max_iters=160000 * accumulate, val_interval=16000 * accumulate)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500 * accumulate),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160000 * accumulate),
]
default_hooks = dict(checkpoint=dict(interval=8000 * accumulate))
auto_scale_lr = dict(base_batch_size=4, accumulative_counts=accumulate)
del accumulate
