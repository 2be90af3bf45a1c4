_base_ = 'upernet_uniformer-small-global_8xb2-160k_ade20k-512x512.py'

# Stage 3 in windows of 14 tokens, every fourth block global; training and testing alike.
model = dict(backbone=dict(stage3_attn='hybrid', window_size=14))
