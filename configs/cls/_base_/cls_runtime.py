"""Shared by every config of classification: hooks, logging, environment."""

default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmuniformer'], allow_failed_imports=False)
# Checks checkpoints and folders before anything is built.
runner_type = 'mmuniformer.CheckedRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        interval=5,
        max_keep_ckpts=3,
        save_best='accuracy/top1',
        rule='greater',
    ),
    # On Ctrl-C and SIGTERM the state is saved; on NaN: action='stop', 'skip' or 'lower' (the rate).
    interrupt=dict(type='mmuniformer.InterruptHook'),
    finite=dict(type='mmuniformer.FiniteHook', action='stop'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='mmuniformer.CheckpointGuardHook'),
    dict(type='mmuniformer.RandomStateHook'),
    # BatchNorm's statistics differ between GPUs until they are averaged.
    dict(type='SyncBuffersHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
