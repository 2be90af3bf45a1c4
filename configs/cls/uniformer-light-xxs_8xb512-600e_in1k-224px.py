_base_ = 'uniformer-light-xs_8xb512-600e_in1k-224px.py'

model = dict(backbone=dict(arch='xxs', drop_path_rate=0.0), head=dict(in_channels=448))

train_pipeline = _base_.train_pipeline
train_pipeline[3]['policy'] = 'v0'
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

lr = 3.2e-3
optim_wrapper = dict(optimizer=dict(lr=lr, weight_decay=0.1))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
del lr
