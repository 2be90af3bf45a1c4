_base_ = 'td-hm_uniformer-small_8xb64-210e_coco-448x320.py'

model = dict(
    backbone=dict(
        arch='base',
        drop_path_rate=0.55,
        init_cfg=dict(
            checkpoint='https://download.openmmlab.com/mmpose/v1/projects/uniformer/'
            'uniformer_base_in1k.pth'
        ),
    )
)
# 8 GPUs x 32 people
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
auto_scale_lr = dict(base_batch_size=256)
