_base_ = 'uniformer-small-tl_8xb128-310e_in1k.py'

model = dict(backbone=dict(arch='small_plus'))
