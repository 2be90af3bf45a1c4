_base_ = 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco.py'

# BatchNorm keeps its ImageNet statistics: the authors' advice after their own runs.
model = dict(backbone=dict(norm_eval=True))
