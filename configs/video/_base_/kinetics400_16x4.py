"""Kinetics-400: clips of 16 frames, one in 4; tests take 4 clips of the middle of frames."""

dataset_type = 'mmuniformer.VideoDataset'
data_root = 'data/kinetics400/'
clip = dict(type='mmuniformer.SampleDense', clip_len=16, frame_interval=4)

augment = [
    dict(type='mmuniformer.ClipRandAugment', policy='rand-m7-n4-mstd0.5-inc1'),
    dict(type='RandomResizedCrop', area_range=(0.08, 1.0), aspect_ratio_range=(3 / 4, 4 / 3)),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='Flip', flip_ratio=0.5),
    # Noise of the mean and deviation of pixels, anew in each frame.
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        mode='rand',
        fill_color=(114.75, 114.75, 114.75),
        fill_std=(57.375, 57.375, 57.375),
    ),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_pipeline = [
    # reader='decord', 'av' or 'cv2' in place of what is installed
    dict(type='mmuniformer.OpenVideo'),
    clip,
    dict(type='mmuniformer.LoadFrames'),
    # Two samples of each decoded clip: a step sees twice the batch.
    dict(type='mmuniformer.Copies', copies=2, transforms=augment),
]
view = [
    dict(type='mmuniformer.LoadFrames'),
    dict(type='mmuniformer.ShortSideResize', scale=224),
    dict(type='mmuniformer.ClipCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=('filename', 'img_shape')),
]
val_pipeline = [dict(type='mmuniformer.OpenVideo'), dict(clip, test_mode=True), *view]
test_pipeline = [
    dict(type='mmuniformer.OpenVideo'),
    dict(clip, test_mode=True, num_clips=4),
    *view,
]

train_dataloader = dict(
    batch_size=4,  # of each of 8 GPUs
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='repeat_pseudo_collate'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='kinetics400_train_list_videos.txt',
        data_prefix=dict(video='videos_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(val_dataloader, batch_size=1)
test_dataloader['dataset'] = dict(val_dataloader['dataset'], pipeline=test_pipeline)
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
del clip, augment, view
