"""UniFormer-S with MixToken and a label for each token in training, 1000 classes.

The release does not settle whether its token-labeled weights were trained with ImageNet's mean and
deviation, as here, or with 0.5 and 0.5: docs/classification.md says how to switch.
"""

_base_ = 'classifier_uniformer.py'

model = dict(
    # No shape shows it: weights of 32 channels a head do not work with 64.
    backbone=dict(head_dim=32, mix_token=True),
    neck=None,
    head=dict(_delete_=True, type='mmuniformer.TokenLabelHead', num_classes=1000, in_channels=512),
    train_cfg=dict(
        augments=[dict(type='mmuniformer.models.erasing.BatchErasing', probability=0.25)]
    ),
)
