_base_ = 'uniformer-small-plus-tl_8xb128-310e_in1k.py'

model = dict(backbone=dict(head_dim=64))
