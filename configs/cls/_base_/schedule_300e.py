"""AdamW in mixed precision for 300 epochs; the learning rate is for 8 GPUs x 128 images."""

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

lr = 1e-3
# fp16 with a dynamic loss scale
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05),
    # no decay of biases, norms and 1-D scales
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
# From 1e-6 up in 5 epochs; then the cosine down to 1e-5 has run for 5 epochs, too.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / lr, end=6, by_epoch=True),
    dict(
        type='mmuniformer.RunningCosineLR',
        begin=5,
        end=300,
        T_max=300,
        eta_min=1e-5,
        by_epoch=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=1024)
del lr
