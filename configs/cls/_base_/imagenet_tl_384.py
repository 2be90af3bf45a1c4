"""ImageNet-1K with label maps (token labeling), 384 x 384."""

_base_ = 'imagenet_tl_224.py'

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[4]['scale'] = 384
test_pipeline[1]['scale'] = 426
test_pipeline[2]['crop_size'] = 384

train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
