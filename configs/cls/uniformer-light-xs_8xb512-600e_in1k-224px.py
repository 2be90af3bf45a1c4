_base_ = [
    '_base_/classifier_uniformer-light.py',
    '_base_/imagenet_224.py',
    '_base_/schedule_600e.py',
    '_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
train_dataloader = dict(batch_size=512, sampler=dict(type='DefaultSampler'))
# Both the average and the trained weights are tested: top1 and top1_origin. The better one counts.
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmpretrain.EMAHook',
        momentum=1e-4,
        update_buffers=True,
        evaluate_on_ema=True,
        evaluate_on_origin=True,
    ),
]
