"""AdamW in mixed precision for 110 epochs; the learning rate is for 8 GPUs x 4 videos."""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=110, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

lr = 1e-4
# fp16 with a dynamic loss scale
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05),
    # no decay of biases, norms and 1-D scales
    paramwise_cfg=dict(flat_decay_mult=0.0),
    clip_grad=dict(max_norm=20),
)
# From 1e-6 up, then down to 1e-6, by iterations.
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6 / lr, end=10, by_epoch=True, convert_to_iter_based=True
    ),
    dict(
        type='CosineAnnealingLR',
        begin=10,
        end=110,
        eta_min=1e-6,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# Videos, each in two copies; `--auto-scale-lr` scales the rate to another batch.
auto_scale_lr = dict(enable=False, base_batch_size=32)
del lr
