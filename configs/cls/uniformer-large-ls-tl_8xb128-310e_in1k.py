_base_ = 'uniformer-small-tl_8xb128-310e_in1k.py'

model = dict(
    backbone=dict(arch='large', head_dim=64, drop_path_rate=0.4), head=dict(in_channels=640)
)

lr = 1.2e-3
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
del lr
