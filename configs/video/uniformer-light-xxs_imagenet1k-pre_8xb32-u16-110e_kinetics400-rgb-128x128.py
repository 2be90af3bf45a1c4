_base_ = [
    '_base_/recognizer_uniformer-light.py',
    '_base_/kinetics400_u16-128.py',
    '_base_/schedule_110e-light.py',
    '_base_/video_runtime.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.05,
        init_cfg=dict(checkpoint='checkpoints/uniformer_xxs_128_in1k.pth'),
    ),
)
