_base_ = [
    '_base_/classifier_uniformer-tl.py',
    '_base_/imagenet_tl_224.py',
    '_base_/schedule_310e.py',
    '_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
# The average is what is tested and saved.
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='mmpretrain.EMAHook', momentum=8e-5, update_buffers=True),
]
