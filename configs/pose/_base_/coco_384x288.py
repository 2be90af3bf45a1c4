"""COCO 2017 people with 17 keypoints, cropped to 288 x 384 (width x height)."""

_base_ = 'coco_256x192.py'

codec = dict(type='MSRAHeatmap', input_size=(288, 384), heatmap_size=(72, 96), sigma=3)
crop = dict(type='TopdownAffine', input_size=codec['input_size'])

# What comes before the crop is the same.
train_pipeline = [
    *_base_.train_pipeline[:-3],
    crop,
    dict(type='GenerateTarget', encoder=codec),
    dict(type='PackPoseInputs'),
]
val_pipeline = [*_base_.val_pipeline[:-2], crop, dict(type='PackPoseInputs')]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
del crop
