"""Something-Something V2: one frame of each of 32 segments."""

_base_ = 'sthv2_u16.py'

train_pipeline, val_pipeline = _base_.train_pipeline, _base_.val_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[1]['clip_len'] = 32
val_pipeline[1]['clip_len'] = 32
test_pipeline[1]['clip_len'] = 32

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
