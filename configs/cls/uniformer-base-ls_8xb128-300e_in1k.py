_base_ = 'uniformer-base_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='base_ls'))
