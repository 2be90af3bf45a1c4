_base_ = 'uniformer-light-xs_8xb512-600e_in1k-224px.py'

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[1]['scale'] = 192
test_pipeline[1]['scale'] = 219
test_pipeline[2]['crop_size'] = 192
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
