_base_ = 'uniformer-small-plus_8xb128-300e_in1k.py'

model = dict(backbone=dict(head_dim=64))
