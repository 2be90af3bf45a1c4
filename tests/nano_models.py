"""The toy models of the three tasks with random weights, whose outputs depend on the image."""

from pathlib import Path

import torch

from mmuniformer.apis.config import load_config
from mmuniformer.apis.models import build_model

CONFIGS = {
    'det': 'mask-rcnn_uniformer-nano_fpn_toy',
    'seg': 'upernet_uniformer-nano_toy-128x128',
    'pose': str(Path(__file__).parent / 'pose_without_refinement.py'),
}


def save_weights(folder):
    """Write a checkpoint for each task, named by it."""
    for task, config in CONFIGS.items():
        torch.manual_seed(1)
        model = build_model(load_config(config))
        randomize(model)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / f'{task}.pth')
    return folder


def randomize(model):
    """Let what a model gives depend on the image."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not name.startswith('backbone'):
            torch.nn.init.normal_(parameter, std=0.1)
