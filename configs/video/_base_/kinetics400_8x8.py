"""Kinetics-400: clips of 8 frames, one in 8."""

_base_ = 'kinetics400_16x4.py'

train_pipeline, val_pipeline = _base_.train_pipeline, _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1].update(clip_len=8, frame_interval=8)
val_pipeline[1].update(clip_len=8, frame_interval=8)
test_pipeline[1].update(clip_len=8, frame_interval=8)

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
