"""Every video config against the published recipe: row, network, data, rates, FLOPs."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import yaml
from config_helpers import ROOT, SHIPPED, decays, load, on_meta, rates, task_of

from mmuniformer.analysis.complexity import run
from mmuniformer.models import UniFormer3D, UniFormerLight3D

pytest.importorskip('mmaction', reason='needs mmaction2: make install')
pytestmark = pytest.mark.frameworks


class Data(NamedTuple):
    """What the rows of a dataset have in common."""

    epochs: int
    warmup: int
    classes: int
    clips: int = 1
    crops: int = 1
    bgr: bool = False
    flip: bool = True
    policy: str = 'rand-m7-n4-mstd0.5-inc1'


KINETICS = Data(110, 10, 400, clips=4)
MILD = 'rand-m5-n2-mstd0.25'
DATA = {
    'kinetics400': KINETICS,
    'kinetics600': KINETICS._replace(classes=600),
    'sthv1': Data(60, 5, 174, crops=3, bgr=True, flip=False),
    'sthv2': Data(50, 5, 174, crops=3, bgr=True, flip=False),
    'ucf101': Data(25, 5, 101, clips=5, crops=3, policy=MILD),
    'hmdb51': Data(25, 5, 51, clips=5, crops=3, policy=MILD, bgr=True),
    'light': KINETICS._replace(clips=1),
}


class Row(NamedTuple):
    """A published row of a network: the total batch, its rate, and billions of FLOPs."""

    batch: int
    rate: float
    drop_path: float
    flops: float
    top1: float


NAME = 'uniformer-{}-pre_8xb{}-{}-rgb'
PUBLISHED = {
    NAME.format('small_imagenet1k', 16, '8x8x1-100e_kinetics400'): Row(128, 4e-4, 0.1, 70, 78.4),
    NAME.format('small_imagenet1k', 4, '16x4x1-110e_kinetics400'): Row(32, 1e-4, 0.1, 167, 80.8),
    NAME.format('small_imagenet1k', 4, '16x8x1-110e_kinetics400'): Row(32, 1e-4, 0.1, 167, 80.8),
    NAME.format('small_imagenet1k', 4, '32x4x1-110e_kinetics400'): Row(32, 1e-4, 0.1, 438, 82.0),
    NAME.format('base_imagenet1k', 8, '8x8x1-100e_kinetics400'): Row(64, 2e-4, 0.3, 161, 79.8),
    NAME.format('base_imagenet1k', 5, '16x4x1-110e_kinetics400'): Row(40, 1.25e-4, 0.3, 387, 82.0),
    NAME.format('base_imagenet1k', 5, '16x8x1-110e_kinetics400'): Row(40, 1.25e-4, 0.3, 387, 81.7),
    NAME.format('base_imagenet1k', 4, '32x4x1-110e_kinetics400'): Row(32, 1e-4, 0.3, 1036, 82.9),
    NAME.format('small_imagenet1k', 12, '16x4x1-110e_kinetics600'): Row(96, 3e-4, 0.1, 167, 82.8),
    NAME.format('small_imagenet1k', 4, '16x8x1-110e_kinetics600'): Row(32, 1e-4, 0.1, 167, 82.7),
    NAME.format('base_imagenet1k', 5, '16x4x1-110e_kinetics600'): Row(40, 1.25e-4, 0.3, 387, 84.0),
    NAME.format('base_imagenet1k', 4, '16x8x1-110e_kinetics600'): Row(32, 1.25e-4, 0.3, 387, 83.4),
    NAME.format('base_imagenet1k', 4, '32x4x1-110e_kinetics600'): Row(32, 1e-4, 0.3, 1036, 84.5),
    NAME.format('small_kinetics400', 4, 'u16-60e_sthv1'): Row(32, 2e-4, 0.2, 125, 57.2),
    NAME.format('small_kinetics600', 4, 'u16-60e_sthv1'): Row(32, 2e-4, 0.2, 125, 57.6),
    NAME.format('small_kinetics400', 4, 'u32-60e_sthv1'): Row(32, 2e-4, 0.2, 329, 58.8),
    NAME.format('small_kinetics600', 4, 'u32-60e_sthv1'): Row(32, 2e-4, 0.3, 329, 59.9),
    NAME.format('base_kinetics400', 5, 'u16-60e_sthv1'): Row(40, 2.5e-4, 0.6, 290, 59.1),
    NAME.format('base_kinetics600', 5, 'u16-60e_sthv1'): Row(40, 2.5e-4, 0.5, 290, 58.8),
    NAME.format('base_kinetics400', 4, 'u32-60e_sthv1'): Row(32, 2e-4, 0.6, 777, 60.9),
    NAME.format('base_kinetics600', 4, 'u32-60e_sthv1'): Row(32, 2e-4, 0.6, 777, 61.0),
    NAME.format('small_kinetics400', 4, 'u16-50e_sthv2'): Row(32, 2e-4, 0.3, 125, 67.7),
    NAME.format('small_kinetics600', 4, 'u16-50e_sthv2'): Row(32, 2e-4, 0.3, 125, 69.4),
    NAME.format('small_kinetics400', 4, 'u32-50e_sthv2'): Row(32, 2e-4, 0.3, 329, 69.0),
    NAME.format('small_kinetics600', 4, 'u32-50e_sthv2'): Row(32, 2e-4, 0.3, 329, 70.4),
    NAME.format('base_kinetics400', 5, 'u16-50e_sthv2'): Row(40, 2.5e-4, 0.4, 290, 70.4),
    NAME.format('base_kinetics600', 5, 'u16-50e_sthv2'): Row(40, 2.5e-4, 0.5, 290, 70.2),
    NAME.format('base_kinetics400', 4, 'u32-50e_sthv2'): Row(32, 2e-4, 0.5, 777, 71.1),
    NAME.format('base_kinetics600', 4, 'u32-50e_sthv2'): Row(32, 2e-4, 0.5, 777, 71.2),
    NAME.format('small_kinetics400', 16, '16x4x1-25e_ucf101-split1'): Row(
        128, 5e-5, 0.2, 625, 98.3
    ),
    NAME.format('small_kinetics400', 16, '16x4x1-25e_hmdb51-split1'): Row(
        128, 5e-5, 0.2, 625, 77.5
    ),
    **{
        NAME.format('light-xxs_imagenet1k', 32, f'u{frames}-110e_kinetics400')
        + f'-{side}x{side}': Row(256, rate, 0.05, flops, top1)
        for side, frames, rate, flops, top1 in (
            (128, 4, 4e-4, 1.0, 63.2),
            (128, 8, 4e-4, 2.0, 68.3),
            (128, 16, 8e-4, 4.2, 73.3),
            (160, 4, 4e-4, 1.6, 65.8),
            (160, 8, 4e-4, 3.3, 71.4),
            (160, 16, 8e-4, 6.9, 75.1),
            (160, 32, 8e-4, 15.4, 77.9),
        )
    },
    NAME.format('light-xs_imagenet1k', 16, 'u32-110e_kinetics400') + '-192x192': Row(
        128, 4e-4, 0.1, 34.2, 78.6
    ),
}
LAYER_SCALED = [
    f'u{frames}-110e_kinetics400-rgb-{side}' for frames, side in ((4, 128), (8, 128), (4, 160))
]
"""Light networks with LayerScale; they are trained with timm's default RandAugment."""
PARAMS = {
    ('small', 400): 21_400_400, ('small', 174): 21_284_462, ('small', 600): 21_503_000,
    ('small', 101): 21_247_013, ('small', 51): 21_221_363, ('base', 400): 49_813_200,
    ('base', 174): 49_697_262, ('base', 600): 49_915_800,
}  # fmt: skip
"""By network and classes."""
LIGHT_PARAMS = {'xxs': 9_833_896, 'xs': 16_099_552}
TOY = 'uniformer3d-nano_toy-u4-64x64'
each_row = pytest.mark.parametrize('name', PUBLISHED)
METAFILE = yaml.safe_load((ROOT / 'video/metafile.yml').read_text())['Models']
METAFILE = {row['Name']: row for row in METAFILE}


def folder_of(name):
    """The dataset that a config trains on."""
    return next(key for key in DATA if f'e_{key}' in name.partition('-pre_')[2])


def data_of(name):
    """What the rows of a config's dataset share."""
    data = DATA['light' if 'light' in name else folder_of(name)]
    return data._replace(epochs=100) if '100e' in name else data


def pipelines(name):
    """The pipelines of training, what it does with each copy, and of tests."""
    config = load(name)
    train, test = (config[f'{key}_dataloader'].dataset.pipeline for key in ('train', 'test'))
    return train, {each.type: each for each in train[3].transforms}, test


# --- rows ---------------------------------------------------------------------------------------


def test_every_published_row_is_there():
    assert set(PUBLISHED) == {name for name in SHIPPED if task_of(name) == 'video'} - {TOY}
    assert set(METAFILE) == {*PUBLISHED, TOY}


@each_row
def test_metafile_tells_score_size_and_length(name):
    row, config, told = PUBLISHED[name], load(name), METAFILE[name]
    metadata = told['Metadata']
    params = sum(parameter.numel() for parameter in on_meta(name).parameters())
    assert told['Results'][0]['Metrics']['Top 1 Accuracy'] == row.top1
    assert metadata['Provenance'] == 'published'
    assert metadata['Parameters (M)'] == round(params / 1e6, 2)
    assert metadata['FLOPs (G)'] == row.flops
    assert metadata['Batch Size'] == row.batch == 8 * config.train_dataloader.batch_size
    assert metadata['Epochs'] == config.train_cfg.max_epochs == data_of(name).epochs
    assert metadata.get('AMP', False) == (config.optim_wrapper.type == 'AmpOptimWrapper')
    assert config.auto_scale_lr.base_batch_size == row.batch


@each_row
def test_network_is_the_published_one(name):
    config, data = load(name), data_of(name)
    model, backbone = on_meta(name), config.model.backbone
    params = sum(parameter.numel() for parameter in model.parameters())
    assert backbone.drop_path_rate == PUBLISHED[name].drop_path
    if 'light' in name:
        scaled = any(part in name for part in LAYER_SCALED)
        assert backbone.get('layer_scale_init_value') == (0.1 if scaled else None)
        assert params == LIGHT_PARAMS[backbone.arch] + scaled * 6720
        assert config.model.cls_head.label_smooth == 0.1
    else:
        assert params == PARAMS[backbone.arch, data.classes]
        assert config.model.cls_head.average_clips == 'score'
        assert config.model.cls_head.label_smooth_eps == 0.1
        assert config.model.cls_head.dropout_ratio == 0
    mix = config.model.data_preprocessor.blending
    assert mix.num_classes == config.model.cls_head.num_classes == data.classes
    start = {'imagenet1k': 'in1k', 'kinetics400': 'kinetics400', 'kinetics600': 'k600'}
    found = start[name.split('_')[1].removesuffix('-pre')]
    assert found in backbone.init_cfg.checkpoint
    assert backbone.arch in backbone.init_cfg.checkpoint
    preprocessor = config.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == ([0.45 * 255] * 3, [0.225 * 255] * 3)


@functools.cache
def view_flops(kind, arch, frames, side):
    """Multiply-adds of a backbone for one view, without the classifier's half a million."""
    backbone = kind(arch).to('meta').eval()
    return run(backbone, torch.empty(1, 3, frames, side, side, device='meta'), {})[1]


@each_row
def test_flops_are_the_published_ones(name):
    backbone, test = load(name).model.backbone, pipelines(name)[2]
    views = test[1].get('num_clips', 1) * test[4].get('crops', 1)
    kind = UniFormerLight3D if 'light' in name else UniFormer3D
    flops = view_flops(kind, backbone.arch, test[1].clip_len, test[4].crop_size)
    published = PUBLISHED[name].flops
    # The light rows are rounded upward.
    tolerance = 0.02 * published + 0.02 if 'light' in name else 0.003 * published + 0.5
    assert flops * views / 1e9 == pytest.approx(published, abs=tolerance)


# --- data ---------------------------------------------------------------------------------------


@each_row
def test_clips_are_sampled_as_published(name):
    train, _, test = pipelines(name)
    text = name.split('_')[2].split('-')[1]
    if text.startswith('u'):
        expected = ('SampleSegments', int(text[1:]), None)
    else:
        frames, interval, _ = map(int, text.split('x'))
        expected = ('SampleDense', frames, interval)
    for sample in (train[1], test[1]):
        kind = sample.type.removeprefix('mmuniformer.')
        assert (kind, sample.clip_len, sample.get('frame_interval')) == expected
    assert not train[1].get('test_mode')
    assert test[1].test_mode
    assert train[3].copies == 2


@each_row
def test_augmentation_and_views_are_the_published_ones(name):
    data, config, (train, each, test) = data_of(name), load(name), pipelines(name)
    side = int(name.rpartition('x')[2]) if 'light' in name else 224
    policy = data.policy
    if 'light-xxs' in name:
        policy = 'rand' if any(part in name for part in LAYER_SCALED) else MILD
    assert each['mmuniformer.ClipRandAugment'].policy == policy
    assert each['RandomResizedCrop'].area_range == (0.08, 1.0)
    assert each['RandomResizedCrop'].aspect_ratio_range == (3 / 4, 4 / 3)
    assert each['Resize'].scale == (side, side)
    assert ('Flip' in each) == data.flip
    assert each['RandomErasing'].erase_prob == 0.25
    assert each['RandomErasing'].max_area_ratio == pytest.approx(1 / 3)
    order = 'bgr' if data.bgr else 'rgb'
    assert train[2].get('channel_order', 'rgb') == test[2].get('channel_order', 'rgb') == order
    assert (test[1].get('num_clips', 1), test[4].get('crops', 1)) == (data.clips, data.crops)
    assert test[3].scale == test[4].crop_size == side
    val = config.val_dataloader.dataset.pipeline
    assert (val[1].get('num_clips', 1), val[4].get('crops', 1)) == (1, 1)
    frames = data.bgr  # the data that come as images
    kind = 'mmuniformer.FrameDataset' if frames else 'mmuniformer.VideoDataset'
    folder = folder_of(name)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.type == kind
        assert loader.dataset.data_root == f'data/{folder}/'
        assert loader.dataset.ann_file.startswith(folder)
        assert ('train' in loader.dataset.ann_file) == (loader is config.train_dataloader)


# --- rates --------------------------------------------------------------------------------------


@each_row
def test_rate_warms_up_and_falls_as_published(name):
    config, row, data = load(name), PUBLISHED[name], data_of(name)
    batches = 50
    step = np.arange(data.epochs * batches) / batches
    rise = 1e-6 + (row.rate - 1e-6) * step * batches / (data.warmup * batches - 1)
    part = (step - data.warmup) / (data.epochs - data.warmup)
    fall = 1e-6 + (row.rate - 1e-6) * (1 + np.cos(math.pi * part)) / 2
    expected = np.where(step < data.warmup, rise, fall)
    assert config.optim_wrapper.optimizer.lr == row.rate
    np.testing.assert_allclose(rates(config, batches, len(step)), expected, rtol=1e-5, atol=1e-10)


@each_row
def test_optimizer_is_the_published_one(name):
    wrapper = load(name).optim_wrapper
    decay = 0.1 if 'light-xxs' in name else 0.05
    sizes = {key: parameter.ndim for key, parameter in on_meta(name).named_parameters()}
    assert decays(name) == {key: decay if ndim > 1 else 0 for key, ndim in sizes.items()}
    assert wrapper.optimizer.type == 'AdamW'
    assert wrapper.optimizer.betas == (0.9, 0.999)
    assert wrapper.clip_grad == dict(max_norm=20)
    assert wrapper.type == ('OptimWrapper' if 'light' in name else 'AmpOptimWrapper')
