_base_ = 'td-hm_uniformer-small_8xb128-210e_coco-256x192.py'

# One GPU: 8 batches of 128 people a step stand for 8 GPUs x 128, at the same learning rate. Epochs
# stay; the warm-up counts batches. BatchNorm sees 128 people at a time either way.
accumulate = 8
optim_wrapper = dict(accumulative_counts=accumulate)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500 * accumulate),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=210, milestones=[170, 200], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=128, accumulative_counts=accumulate)
del accumulate
