"""ADE20K for Semantic FPN: test images are resized to a multiple of 32."""

_base_ = 'ade20k.py'

to_multiple = dict(type='ResizeToMultiple', size_divisor=32)
test_pipeline = _base_.test_pipeline
test_pipeline.insert(2, to_multiple)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'].insert(1, [to_multiple])

train_dataloader = dict(batch_size=4)  # of each of 8 GPUs
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
del to_multiple
