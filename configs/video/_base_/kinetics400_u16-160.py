"""Kinetics-400 for light networks: 16 segments, frames of 160 x 160, tests of one view."""

_base_ = 'kinetics400_16x4.py'

clip = dict(type='mmuniformer.SampleSegments', clip_len=16)
train_pipeline, test_pipeline = _base_.train_pipeline, _base_.val_pipeline
train_pipeline[1], test_pipeline[1] = clip, dict(clip, test_mode=True)
train_pipeline[3]['transforms'][0]['policy'] = 'rand-m5-n2-mstd0.25'
train_pipeline[3]['transforms'][2]['scale'] = (160, 160)
test_pipeline[3]['scale'] = 160
test_pipeline[4]['crop_size'] = 160
val_pipeline = test_pipeline

train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
del clip
