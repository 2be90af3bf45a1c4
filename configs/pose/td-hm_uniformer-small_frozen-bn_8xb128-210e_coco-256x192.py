_base_ = 'td-hm_uniformer-small_8xb128-210e_coco-256x192.py'

# BatchNorm keeps its ImageNet statistics: the authors' advice after their own runs.
model = dict(backbone=dict(norm_eval=True))
