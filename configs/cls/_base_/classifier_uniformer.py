"""UniFormer-S in mmpretrain's classifier, 1000 classes."""

num_classes = 1000
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmuniformer.UniFormer', arch='small', out_norm='BN', out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=num_classes,
        in_channels=512,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=num_classes, mode='original'
        ),
    ),
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        num_classes=num_classes,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True,
    ),
    # By its path: mmpretrain's registry of batch augmentations has no scopes.
    train_cfg=dict(augments=[dict(type='mmuniformer.models.mixing.BatchMix', erase_prob=0.25)]),
)
del num_classes
