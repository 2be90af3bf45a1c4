"""Trains from scratch in minutes on two CPU cores; shows that everything works, not how well."""

_base_ = [
    '../_base_/upernet_uniformer-nano.py',
    '../_base_/toy_semantic.py',
    '../_base_/schedule_toy-semantic.py',
    '../_base_/seg_runtime.py',
]

default_hooks = dict(logger=dict(interval=20))
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=0)
