"""The people of `mmuniformer toy-data data/toy`, cropped to 96 x 128 (width x height)."""

_base_ = 'coco_256x192.py'

data_root = 'data/toy/coco/'
# Unbiased coding: on a grid this coarse, positions between its points matter.
codec = dict(
    type='MSRAHeatmap',
    input_size=(96, 128),
    heatmap_size=(24, 32),
    sigma=1.5,
    unbiased=True,
    blur_kernel_size=7,
)
crop = dict(type='TopdownAffine', input_size=codec['input_size'])

# No flips: left limbs are drawn in warm colors and right limbs in cool ones; a flip swaps them.
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomBBoxTransform', scale_factor=(0.8, 1.25), rotate_factor=20),
    crop,
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [*_base_.val_pipeline[:-2], crop, dict(type='PackPoseInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, bbox_file=None, pipeline=val_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/person_keypoints_val2017.json')
test_evaluator = val_evaluator
del crop
