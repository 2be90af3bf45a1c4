"""Hooks for mmengine's runner."""

from mmuniformer.engine.hooks.checkpoint_guard import CheckpointGuardHook
from mmuniformer.engine.hooks.label_maps import MaskGuardHook
from mmuniformer.engine.hooks.random_state import RandomStateHook

__all__ = ['CheckpointGuardHook', 'MaskGuardHook', 'RandomStateHook']
