"""UperNet: AdamW for 160k iterations; the learning rate is for 8 GPUs x 2 images."""

train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # matches every parameter whose name contains it: norm1, norm2, patch_embed1.norm, ...
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
# Both from the start: the warm-up is a factor on the decaying rate.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=160000),
]
# 8 GPUs x 2 images; `--auto-scale-lr` scales the rate to another batch.
auto_scale_lr = dict(enable=False, base_batch_size=16)
