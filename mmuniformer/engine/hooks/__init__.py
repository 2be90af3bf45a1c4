"""Hooks for mmengine's runner."""

from mmuniformer.engine.hooks.checkpoint import CheckpointHook
from mmuniformer.engine.hooks.checkpoint_guard import CheckpointGuardHook
from mmuniformer.engine.hooks.ema import KeepEMAHook
from mmuniformer.engine.hooks.finite import FiniteHook
from mmuniformer.engine.hooks.interrupt import InterruptHook
from mmuniformer.engine.hooks.label_maps import MaskGuardHook
from mmuniformer.engine.hooks.random_state import RandomStateHook

__all__ = [
    'CheckpointGuardHook',
    'CheckpointHook',
    'FiniteHook',
    'InterruptHook',
    'KeepEMAHook',
    'MaskGuardHook',
    'RandomStateHook',
]
