_base_ = 'uniformer-small_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='small_plus'))
