_base_ = [
    '_base_/classifier_uniformer.py',
    '_base_/imagenet_224.py',
    '_base_/schedule_300e.py',
    '_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
# Kept in checkpoints, not tested.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmuniformer.KeepEMAHook', momentum=4e-5, update_buffers=True),
]
