"""The drawn clips of `mmuniformer toy-data data/toy`: one frame of each of 4 segments, 64 x 64."""

_base_ = 'kinetics400_16x4.py'

data_root = 'data/toy/video/'
metainfo = dict(classes=('left', 'right', 'up', 'down', 'grow', 'shrink'))
clip = dict(type='mmuniformer.SampleSegments', clip_len=4)
view = [
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=('filename', 'img_shape')),
]
augment = [
    dict(type='mmuniformer.ClipRandAugment', policy='rand-m3-n1-mstd0.5-inc1'),
    dict(type='RandomResizedCrop', area_range=(0.7, 1.0), aspect_ratio_range=(3 / 4, 4 / 3)),
    dict(type='Resize', scale=(64, 64), keep_ratio=False),
]
train_pipeline = [
    dict(type='mmuniformer.OpenVideo'),
    clip,
    dict(type='mmuniformer.LoadFrames'),
    dict(type='mmuniformer.Copies', copies=2, transforms=[*augment, *view]),
]
test_pipeline = [
    dict(type='mmuniformer.OpenVideo'),
    dict(clip, test_mode=True),
    dict(type='mmuniformer.LoadFrames'),
    dict(type='mmuniformer.ShortSideResize', scale=64),
    dict(type='mmuniformer.ClipCrop', crop_size=64),
    *view,
]
val_pipeline = test_pipeline

videos = dict(data_root=data_root, metainfo=metainfo, ann_file='')
train = dict(data_prefix=dict(video='train'), pipeline=train_pipeline)
val = dict(data_prefix=dict(video='val'), pipeline=test_pipeline)
loader = dict(batch_size=16, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    loader, num_workers=1, persistent_workers=True, dataset=dict(videos, **train)
)
val_dataloader = dict(loader, dataset=dict(videos, **val))
test_dataloader = dict(loader, dataset=dict(videos, **val))
del clip, view, augment, videos, train, val, loader
