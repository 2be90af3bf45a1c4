"""The toy pose config, decoding without its refinement, which random heatmaps make unstable."""

_base_ = '../configs/pose/toy/td-hm_uniformer-nano_toy-128x96.py'

model = dict(head=dict(decoder=dict(unbiased=False)))
