_base_ = [
    '_base_/classifier_uniformer.py',
    '_base_/imagenet_224.py',
    '_base_/schedule_300e.py',
    '_base_/cls_runtime.py',
]

# The authors keep an average of the weights, too, which they do not evaluate: there is none here.
model = dict(backbone=dict(drop_path_rate=0.1))
