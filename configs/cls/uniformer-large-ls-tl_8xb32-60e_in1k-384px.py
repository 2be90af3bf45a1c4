_base_ = 'uniformer-small-tl_8xb64-60e_in1k-384px.py'

model = dict(
    backbone=dict(arch='large', head_dim=64, drop_path_rate=0.3), head=dict(in_channels=640)
)
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=256)
load_from = 'checkpoints/uniformer_large_ls_tl_224.pth'
