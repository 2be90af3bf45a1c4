_base_ = 'uniformer-small-tl_8xb64-60e_in1k-384px.py'

model = dict(backbone=dict(arch='small_plus'))
load_from = 'checkpoints/uniformer_small_plus_tl_224.pth'
