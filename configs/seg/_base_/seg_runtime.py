"""Shared by every segmentation config: hooks, logging, environment."""

default_scope = 'mmseg'
custom_imports = dict(imports=['mmuniformer'], allow_failed_imports=False)
# Checks checkpoints and folders before anything is built.
runner_type = 'mmuniformer.CheckedRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=8000, max_keep_ckpts=3),
    # On Ctrl-C and SIGTERM the state is saved; on NaN: action='stop', 'skip' or 'lower' (the rate).
    interrupt=dict(type='mmuniformer.InterruptHook'),
    finite=dict(type='mmuniformer.FiniteHook', action='stop'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
# In this order: refuse checkpoints of other networks; refuse label maps that fit neither images nor
# classes; resume exactly.
custom_hooks = [
    dict(type='mmuniformer.CheckpointGuardHook'),
    dict(type='mmuniformer.MaskGuardHook'),
    dict(type='mmuniformer.RandomStateHook'),
]

env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
