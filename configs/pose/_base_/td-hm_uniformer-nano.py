"""Top-down heatmaps small enough to learn the toy people on two CPU cores."""

_base_ = 'td-hm_uniformer.py'

model = dict(
    # No recomputing in backward: memory is no concern here.
    backbone=dict(arch='nano', with_cp=False),
    head=dict(in_channels=128, deconv_out_channels=(64, 64, 64)),
    test_cfg=dict(flip_test=False),
)
