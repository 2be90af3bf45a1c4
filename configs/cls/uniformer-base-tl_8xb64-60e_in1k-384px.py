_base_ = 'uniformer-small-tl_8xb64-60e_in1k-384px.py'

model = dict(backbone=dict(arch='base', drop_path_rate=0.3))
load_from = 'checkpoints/uniformer_base_tl_224.pth'
