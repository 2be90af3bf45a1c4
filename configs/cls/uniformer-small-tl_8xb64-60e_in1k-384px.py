_base_ = [
    '_base_/classifier_uniformer-tl.py',
    '_base_/imagenet_tl_384.py',
    '_base_/schedule_60e-tuning.py',
    '_base_/cls_runtime.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
# What uniformer-small-tl_8xb128-310e_in1k gave, or the released file
load_from = 'checkpoints/uniformer_small_tl_224.pth'
