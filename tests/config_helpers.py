"""Shipped configs with options, and a tiny segmentation dataset, for several test modules."""

from __future__ import annotations

import argparse
import copy
import functools
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine import Config
from mmengine.config import DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmuniformer.apis.models import build_model

ROOT = Path(__file__).resolve().parents[1] / 'configs'
SHIPPED = {path.stem: path for path in sorted(ROOT.rglob('*.py')) if '_base_' not in path.parts}
"""Every config that is not a base, by its name."""
SPLITS = ('train', 'val', 'test')
LOADERS = [f'{split}_dataloader.dataset' for split in SPLITS]
FPN = 'fpn_uniformer-{}_8xb4-80k_ade20k-512x512'
UPERNET = 'upernet_uniformer-{}_8xb2-160k_ade20k-512x512'
SEG_TOYS = [f'{head}_uniformer-nano_toy-128x128' for head in ('fpn', 'upernet')]
OWN_SIZE = (80, 100)
"""Height and width of the images of ``write_own_data``."""


def task_of(name):
    """The task of a config: the folder below configs."""
    return SHIPPED[name].relative_to(ROOT).parts[0]


@functools.cache
def _load(name):
    return Config.fromfile(SHIPPED[name])


def load(name, *options):
    """Config `name` with options as they are written after --cfg-options."""
    config = copy.deepcopy(_load(name))
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    if options:
        config.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return config


@functools.cache
def on_meta(name):
    """The model of config `name` on the meta device: shapes without memory or arithmetic."""
    return build_model(load(name), device='meta')


def rates(config, batches, steps):
    """Learning rates of a run by batch: `batches` an epoch, or all of them; `steps` in total."""
    optimizer = torch.optim.SGD(
        [nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr
    )
    settings = {'optimizer': optimizer, 'epoch_length': batches}
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args=settings)
        for scheduler in copy.deepcopy(config.param_scheduler)
    ]
    found = []
    for step in range(1, steps + 1):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % batches == 0:
                scheduler.step()
    return np.array(found)


def decays(name):
    """Weight decay of each parameter of config `name`."""
    model, wrapper = on_meta(name).train(), load(name).optim_wrapper
    names = {parameter: key for key, parameter in model.named_parameters()}
    groups = build_optim_wrapper(model, {**wrapper, 'type': 'OptimWrapper'}).optimizer.param_groups
    return {names[p]: group['weight_decay'] for group in groups for p in group['params']}


def write_own_data(root):
    """Write three images a split with label maps of three classes, 255 for no class."""
    noise = np.random.default_rng(0)
    height, width = OWN_SIZE
    labels = np.repeat(np.array([0, 1, 2, 255], np.uint8), height // 4)[:, None].repeat(width, 1)
    for split in ('train', 'val'):
        for kind in ('images', 'masks'):
            (root / split / kind).mkdir(parents=True)
        for number in range(3):
            image = noise.integers(0, 255, (height, width, 3), np.uint8)
            cv2.imwrite(str(root / split / 'images' / f'{number}.png'), image)
            cv2.imwrite(str(root / split / 'masks' / f'{number}_label.png'), labels)
    return root


def own_data_options(root, auxiliary=True):
    """The options of "Your own data" in docs/segmentation.md."""
    return [
        *(f'{loader}.type=BaseSegDataset' for loader in LOADERS),
        *(f'{loader}.data_root={root}/' for loader in LOADERS),
        'train_dataloader.dataset.data_prefix.img_path=train/images',
        'train_dataloader.dataset.data_prefix.seg_map_path=train/masks',
        *(f'{loader}.data_prefix.img_path=val/images' for loader in LOADERS[1:]),
        *(f'{loader}.data_prefix.seg_map_path=val/masks' for loader in LOADERS[1:]),
        *(f'{loader}.img_suffix=.png' for loader in LOADERS),
        *(f'{loader}.seg_map_suffix=_label.png' for loader in LOADERS),
        *(f'{loader}.reduce_zero_label=False' for loader in LOADERS),
        *(f'{loader}.metainfo.classes=(road,sky,tree)' for loader in LOADERS),
        *(
            f'{loader}.metainfo.palette=[[128,64,128],[70,130,180],[107,142,35]]'
            for loader in LOADERS
        ),
        'model.decode_head.num_classes=3',
        *['model.auxiliary_head.num_classes=3'] * auxiliary,
    ]
