"""ImageNet-1K with label maps (token labeling), 224 x 224."""

_base_ = 'imagenet_224.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    # FOLDER/n01440764/n01440764_10026.pt for each image; none to train without
    dict(type='mmuniformer.LoadLabelMap', label_root='data/imagenet/label_top5_train_nfnet'),
    dict(type='mmuniformer.TimmAugment', policy='rand-m9-mstd0.5-inc1', interpolation='random'),
    dict(type='mmuniformer.RandomResizedCropBox', scale=224, backend='pillow'),
    dict(type='mmuniformer.TokenLabels', num_classes=1000),
    dict(type='PackInputs', algorithm_keys=('token_labels',)),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1]['scale'] = 248

train_dataloader = dict(
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
