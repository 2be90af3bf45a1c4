"""Every config of image classification against the published recipe."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml
from config_helpers import ROOT, SHIPPED, decays, load, on_meta, rates, task_of
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from mmuniformer.models import UniFormerLight

pytest.importorskip('mmpretrain', reason='needs mmpretrain: make install')
from mmpretrain.datasets.samplers import repeat_aug
from mmpretrain.registry import DATA_SAMPLERS, MODELS
from mmpretrain.structures import DataSample

pytestmark = pytest.mark.frameworks


class Row(NamedTuple):
    """A published row: rate, drop path, parameters, billions of FLOPs, top-1."""

    rate: float
    drop_path: float
    params: int
    flops: float
    top1: float
    decay: float = 0.05
    px: int = 224


PLAIN = {
    'uniformer-small_8xb128-300e_in1k': Row(1e-3, 0.1, 21_545_256, 3.6, 82.9),
    'uniformer-small-plus_8xb128-300e_in1k': Row(1e-3, 0.1, 24_032_552, 4.2, 83.4),
    'uniformer-small-plus-dim64_8xb128-300e_in1k': Row(1e-3, 0.1, 24_032_552, 4.2, 83.4),
    'uniformer-base_8xb128-300e_in1k': Row(8e-4, 0.3, 49_776_552, 8.3, 83.8),
    'uniformer-base-ls_8xb128-300e_in1k': Row(8e-4, 0.3, 49_796_520, 8.3, 83.9),
}
LIGHT = {
    f'uniformer-light-xxs_8xb512-600e_in1k-{px}px': Row(
        3.2e-3, 0.0, 10_215_280, flops, top1, 0.1, px
    )
    for px, flops, top1 in (
        (128, 0.43, 76.8),
        (160, 0.67, 79.1),
        (192, 0.96, 79.9),
        (224, 1.3, 80.6),
    )
} | {
    f'uniformer-light-xs_8xb512-600e_in1k-{px}px': Row(4e-3, 0.1, 16_509_264, flops, top1, px=px)
    for px, flops, top1 in ((192, 1.4, 81.5), (224, 2.0, 82.0))
}
TOKEN_LABELED = {
    f'uniformer-{arch}-tl{dim}_8xb128-310e_in1k': Row(rate, drop_path, params, flops, top1)
    for arch, dim, rate, drop_path, params, flops, top1 in (
        ('small', '', 1.6e-3, 0.1, 22_058_256, 3.6, 83.4),
        ('small', '-dim64', 1.6e-3, 0.1, 22_058_256, 3.6, 83.4),
        ('small-plus', '', 1.6e-3, 0.1, 24_545_552, 4.2, 83.9),
        ('small-plus', '-dim64', 1.6e-3, 0.1, 24_545_552, 4.2, 83.6),
        ('base', '', 1.6e-3, 0.3, 50_289_552, 8.3, 85.1),
        ('base', '-dim64', 1.6e-3, 0.3, 50_289_552, 8.3, 84.8),
        ('large-ls', '', 1.2e-3, 0.4, 100_103_888, 12.6, 85.6),
    )
}
FINE_TUNED = {
    f'uniformer-{arch}-tl_8xb{batch}-60e_in1k-384px': Row(
        5e-6, drop_path, params, flops, top1, 1e-8, 384
    )
    for arch, batch, drop_path, params, flops, top1 in (
        ('small', 64, 0.1, 22_058_256, 11.9, 84.6),
        ('small-plus', 64, 0.1, 24_545_552, 13.7, 84.9),
        ('base', 64, 0.3, 50_289_552, 27.2, 86.0),
        ('large-ls', 32, 0.3, 100_103_888, 39.2, 86.3),
    )
}
WITH_MAPS = TOKEN_LABELED | FINE_TUNED
PUBLISHED = PLAIN | LIGHT | WITH_MAPS
TOY = 'uniformer-nano_toy-64x64'
METAFILE = yaml.safe_load((ROOT / 'cls' / 'metafile.yml').read_text())['Models']
METAFILE = {row['Name']: row for row in METAFILE}
each_row = pytest.mark.parametrize('name', PUBLISHED)


def part_of(name, text):
    """The number before a letter in a config's name: 8xb128, 300e."""
    return int(re.search(text, name)[1])


def test_every_published_row_is_there():
    assert {*PUBLISHED, TOY} == {name for name in SHIPPED if task_of(name) == 'cls'}
    assert set(METAFILE) == {*PUBLISHED, TOY}


@each_row
def test_metafile_tells_score_size_and_length(name):
    row, config, told = PUBLISHED[name], load(name), METAFILE[name]
    metadata = told['Metadata']
    batch = part_of(name, r'8xb(\d+)')
    assert told['Results'][0]['Metrics'] == {'Top 1 Accuracy': row.top1}
    assert metadata['Provenance'] == 'published'
    assert metadata['Parameters (M)'] == round(row.params / 1e6, 2)
    assert metadata['FLOPs (G)'] == row.flops
    assert metadata['Input Size'] == f'{row.px} x {row.px}'
    assert metadata['Batch Size'] == config.auto_scale_lr.base_batch_size == 8 * batch
    assert config.train_dataloader.batch_size == batch
    assert metadata['Epochs'] == config.train_cfg.max_epochs == part_of(name, r'-(\d+)e_')
    assert metadata.get('AMP', False) == (config.optim_wrapper.type == 'AmpOptimWrapper')
    assert metadata.get('AMP', False) == (name not in LIGHT)


@each_row
def test_network(name):
    row, backbone = PUBLISHED[name], load(name).model.backbone
    assert backbone.drop_path_rate == row.drop_path
    assert sum(p.numel() for p in on_meta(name).parameters()) == row.params
    dim = {'xxs': 28, 'xs': 32, 'small_plus': 32, 'large': 64}.get(
        backbone.arch, 32 if name in WITH_MAPS else 64
    )
    assert on_meta(name).backbone.head_dim == (64 if 'dim64' in name else dim)
    assert backbone.get('mix_token', False) == (name in WITH_MAPS)


@each_row
def test_warm_up_runs_inside_the_cosine(name):
    rate, epochs = PUBLISHED[name].rate, part_of(name, r'-(\d+)e_')
    if name in FINE_TUNED:
        np.testing.assert_array_equal(rates(load(name), 1, epochs), rate)
        return
    found = rates(load(name), 1, epochs)
    if name in TOKEN_LABELED:
        epochs -= 10
        np.testing.assert_allclose(found[epochs:], 1e-5, rtol=1e-9)
    warmup = epochs // (20 if name in LIGHT else 60)
    cosine = [
        1e-5 + (rate - 1e-5) * (1 + math.cos(math.pi * t / epochs)) / 2 for t in range(epochs)
    ]
    warm = [1e-6 + (rate - 1e-6) * t / warmup for t in range(warmup)]
    np.testing.assert_allclose(found[:warmup], warm, rtol=1e-9)
    np.testing.assert_allclose(found[warmup:epochs], cosine[warmup:], rtol=1e-9)


@each_row
def test_flat_parameters_and_the_class_token_have_no_decay(name):
    free = {key for key, p in on_meta(name).named_parameters() if p.ndim == 1}
    free |= {'backbone.cls_token'} & dict(on_meta(name).named_parameters()).keys()
    assert len(free) > 50
    assert decays(name) == {
        key: 0 if key in free else PUBLISHED[name].decay
        for key, _ in on_meta(name).named_parameters()
    }
    wrapper = load(name).optim_wrapper
    assert wrapper.optimizer.type == 'AdamW'
    assert wrapper.optimizer.betas == (0.9, 0.999)
    assert 'clip_grad' not in wrapper


@each_row
def test_data_are_the_published_ones(name):
    config, px = load(name), PUBLISHED[name].px
    train, test = (config[f'{key}_dataloader'].dataset.pipeline for key in ('train', 'test'))
    assert config.train_dataloader.drop_last
    steps = {each.type.removeprefix('mmuniformer.'): each for each in train}
    order = ['LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'TimmAugment', 'PackInputs']
    if name in WITH_MAPS:
        order[1:4] = [
            'RandomFlip', 'LoadLabelMap', 'TimmAugment', 'RandomResizedCropBox', 'TokenLabels'
        ]  # fmt: skip
    assert list(steps) == order
    assert steps['RandomFlip'].prob == 0.5
    augment, interpolation = steps['TimmAugment'], 'random' if name in WITH_MAPS else 'bicubic'
    assert augment.policy == ('v0' if 'xxs' in name else 'rand-m9-mstd0.5-inc1')
    assert augment.get('interpolation', 'bicubic') == interpolation
    crop = steps['RandomResizedCropBox' if name in WITH_MAPS else 'RandomResizedCrop']
    assert (crop.scale, crop.backend) == (px, 'pillow')
    assert crop.get('interpolation') == (None if name in WITH_MAPS else 'bicubic')
    resized = int(px / 0.9) if name in WITH_MAPS else int(256 / 224 * px)
    assert (test[1].scale, test[2].crop_size) == (resized, px)
    assert (test[1].interpolation, test[1].backend) == ('bicubic', 'pillow')
    assert config.val_dataloader.dataset.pipeline == test
    sampler = config.train_dataloader.sampler
    assert sampler.type == ('RepeatAugSampler' if name in PLAIN else 'DefaultSampler')
    assert sampler.shuffle
    (augment,) = config.model.train_cfg.augments
    if name in WITH_MAPS:
        assert augment.type.endswith('.BatchErasing')
        assert augment.probability == 0.25
    else:
        assert augment.type.endswith('.BatchMix')
        assert augment.erase_prob == 0.25
    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """An image and its label map, whose cells are all of class 7."""
    folder = tmp_path_factory.mktemp('data')
    for name in ('train', 'maps'):
        (folder / name / 'n0').mkdir(parents=True)
    path = folder / 'train' / 'n0' / 'a.png'
    pixels = np.random.default_rng(0).integers(0, 256, (500, 460, 3)).astype(np.uint8)
    cv2.imwrite(str(path), pixels)
    cells = torch.arange(7, 12).half().view(1, 5, 1, 1).expand(1, 5, 18, 18)
    logits = torch.tensor([30.0, 1, 1, 1, 1]).half().view(1, 5, 1, 1).expand(1, 5, 18, 18)
    torch.save(torch.cat([logits, cells]), folder / 'maps' / 'n0' / 'a.pt')
    return path


@each_row
def test_pipelines_give_what_the_networks_take(name, image):
    px = PUBLISHED[name].px
    init_default_scope('mmpretrain')
    for split in ('train', 'val', 'test'):
        steps = load(name)[f'{split}_dataloader'].dataset.pipeline
        for step in steps:
            if 'label_root' in step:
                step.label_root = str(image.parents[2] / 'maps')
            if 'policy' in step:  # a warp would take logits from outside of the map
                step.policy = 'rand-m0'
        found = Compose(steps)({'img_path': str(image), 'gt_label': 3})
        assert found['inputs'].shape == (3, px, px)
        sample = found['data_samples']
        assert sample.gt_label.tolist() == [3]
        if name in WITH_MAPS and split == 'train':
            assert sample.token_labels.shape == (1000, 2 + (px // 32) ** 2)
            assert sample.token_labels.argmax(0).tolist() == [3] + [7] * (1 + (px // 32) ** 2)
        else:
            assert 'token_labels' not in sample


@each_row
def test_averages_are_the_published_ones(name):
    hooks = [hook for hook in load(name).custom_hooks if 'EMA' in hook.type]
    if name in FINE_TUNED:
        assert not hooks
        return
    (hook,) = hooks
    decay = 0.9999 if name in LIGHT else 0.99992 if name in TOKEN_LABELED else 0.99996
    assert hook.momentum == pytest.approx(1 - decay)
    assert hook.update_buffers
    assert hook.type == ('mmuniformer.KeepEMAHook' if name in PLAIN else 'mmpretrain.EMAHook')
    assert hook.get('evaluate_on_origin', False) == (name in LIGHT)
    assert hook.get('evaluate_on_ema', True)


@pytest.mark.parametrize('name', FINE_TUNED)
def test_fine_tuning_starts_from_the_weights_of_224_pixels(name):
    arch = name.split('_')[0].removeprefix('uniformer-').removesuffix('-tl').replace('-', '_')
    assert load(name).load_from == f'checkpoints/uniformer_{arch}_tl_224.pth'


def test_class_token_of_the_light_networks_starts_from_zero():
    (name, *_) = LIGHT
    options = 'model.backbone.arch=nano', 'model.head.in_channels=128'
    init_default_scope('mmpretrain')
    model = MODELS.build(load(name, *options).model)
    model.init_weights()
    assert not model.backbone.cls_token.any()
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert UniFormerLight('nano').cls_token.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize('rank', [0, 5])
def test_repeated_augmentation_takes_the_released_samples(rank, monkeypatch):
    """The authors' sampler leaves out what whole batches on 8 GPUs do not need; drop_last does."""
    monkeypatch.setattr(repeat_aug, 'get_dist_info', lambda: (rank, 8))
    images = 1_281_167
    sampler = dict(load('uniformer-small_8xb128-300e_in1k').train_dataloader.sampler, seed=0)
    sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=range(images)))
    sampler.set_epoch(3)
    taken = len(sampler) // 128 * 128
    assert taken == images // 256 * 256 // 8
    order = torch.randperm(images, generator=torch.Generator().manual_seed(3))
    released = order.repeat_interleave(3)[rank::8][:taken]
    assert list(sampler)[:taken] == released.tolist()


def test_a_step_mixes_the_batch_with_its_reverse():
    options = 'model.backbone.arch=nano', 'model.head.in_channels=128'
    augments = 'model.train_cfg.augments.0.erase_prob=0.0'
    config = load('uniformer-small_8xb128-300e_in1k', *options, augments)
    init_default_scope('mmpretrain')
    model = MODELS.build(config.model).train()
    samples = [DataSample().set_gt_label(label) for label in (1, 2)]
    images = [torch.zeros(3, 64, 64, dtype=torch.uint8) + shade for shade in (0, 200)]
    data = model.data_preprocessor({'inputs': images, 'data_samples': samples}, training=True)
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    torch.testing.assert_close(scores[0, 1:3], scores[1, 1:3].flip(0))
    assert model(**data, mode='loss')['loss'].item() > 1
