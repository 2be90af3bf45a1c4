_base_ = 'uniformer-small_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3))

lr = 8e-4
optim_wrapper = dict(optimizer=dict(lr=lr))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1e-6 / lr)
del lr
