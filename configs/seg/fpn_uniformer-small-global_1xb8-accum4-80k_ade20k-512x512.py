_base_ = 'fpn_uniformer-small-global_8xb4-80k_ade20k-512x512.py'

# One GPU: 4 batches of 8 images a step stand for 8 GPUs x 4, so the iterations are 4 times as many.
# BatchNorm in the head sees 8 images at a time instead of 32.
accumulate = 4
train_dataloader = dict(batch_size=8)
optim_wrapper = dict(accumulative_counts=accumulate)
train_cfg = dict(max_iters=80000 * accumulate, val_interval=8000 * accumulate)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1000 * accumulate),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=1e-8,
        by_epoch=False,
        begin=0,
        end=80000 * accumulate,
    ),
]
default_hooks = dict(checkpoint=dict(interval=8000 * accumulate))
auto_scale_lr = dict(base_batch_size=8, accumulative_counts=accumulate)
del accumulate
