"""Shared by every detection config: hooks, logging, environment."""

default_scope = 'mmdet'
custom_imports = dict(imports=['mmuniformer'], allow_failed_imports=False)
# Checks checkpoints and annotation files before anything is built.
runner_type = 'mmuniformer.CheckedRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3),
    # On Ctrl-C and SIGTERM the state is saved; on NaN: action='stop', 'skip' or 'lower' (the rate).
    interrupt=dict(type='mmuniformer.InterruptHook'),
    finite=dict(type='mmuniformer.FiniteHook', action='stop'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
)
# NumClassCheckHook refuses heads with another number of classes than the dataset.
custom_hooks = [
    dict(type='mmuniformer.CheckpointGuardHook'),
    dict(type='NumClassCheckHook'),
    dict(type='mmuniformer.RandomStateHook'),
]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
