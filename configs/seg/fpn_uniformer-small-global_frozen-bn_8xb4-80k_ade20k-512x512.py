_base_ = 'fpn_uniformer-small-global_8xb4-80k_ade20k-512x512.py'

# BatchNorm keeps its ImageNet statistics: the authors' advice after their own runs.
model = dict(backbone=dict(norm_eval=True))
