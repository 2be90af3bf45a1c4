_base_ = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco.py'

# One GPU: 8 batches of 2 images a step stand for 8 GPUs x 2, at the same learning rate. Epochs
# stay; the warm-up counts batches.
accumulate = 8
optim_wrapper = dict(accumulative_counts=accumulate)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500 * accumulate),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=2, accumulative_counts=accumulate)
del accumulate
