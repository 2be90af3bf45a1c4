"""Shared by every pose config: hooks, logging, environment."""

default_scope = 'mmpose'
custom_imports = dict(imports=['mmuniformer'], allow_failed_imports=False)
# Checks checkpoints and annotation files before anything is built.
runner_type = 'mmuniformer.CheckedRunner'
# MMPoseInferencer reads it.
data_mode = 'topdown'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=10, max_keep_ckpts=3, save_best='coco/AP', rule='greater'
    ),
    # On Ctrl-C and SIGTERM the state is saved; on NaN: action='stop', 'skip' or 'lower' (the rate).
    interrupt=dict(type='mmuniformer.InterruptHook'),
    finite=dict(type='mmuniformer.FiniteHook', action='stop'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='PoseVisualizationHook', enable=False),
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
visualizer = dict(
    type='PoseLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True, num_digits=6)
log_level = 'INFO'
load_from = None
resume = False
