"""Segmentation configs against the published recipes and parameter counts."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from seg_helpers import (
    DELTAS,
    FPN,
    OWN_SIZE,
    SEG,
    TOYS,
    UPERNET,
    load,
    own_data_options,
    write_own_data,
)

from mmuniformer.analysis import metafile as model_zoo

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = 'https://download.openmmlab.com/mmpose/v1/projects/uniformer/uniformer_{}_in1k.pth'


class Recipe(NamedTuple):
    arch: str
    layout: str
    drop_path: float
    params: float
    flops: dict[str, float]
    """By test layout, as published."""

    @property
    def light(self):
        return self.arch.startswith('x')


RECIPES = {
    FPN.format('light-xxs'): Recipe('xxs', 'hourglass', 0.0, 13.5, {}),
    FPN.format('light-xs'): Recipe('xs', 'hourglass', 0.1, 19.7, {}),
    FPN.format('small-h14'): Recipe('small', 'h14', 0.1, 25, {}),
    FPN.format('base-h14'): Recipe('base', 'h14', 0.2, 54, {}),
    FPN.format('small-global'): Recipe(
        'small', 'global', 0.1, 25, {'w32': 183, 'h32': 199, 'global': 247}
    ),
    FPN.format('base-global'): Recipe(
        'base', 'global', 0.2, 54, {'w32': 310, 'h32': 350, 'global': 471}
    ),
    UPERNET.format('small-h14'): Recipe('small', 'h14', 0.25, 52, {'h14': 947}),
    UPERNET.format('base-h14'): Recipe('base', 'h14', 0.4, 80, {'h14': 1085}),
    UPERNET.format('small-global'): Recipe(
        'small', 'global', 0.25, 52, {'w32': 939, 'h32': 955, 'global': 1004}
    ),
    UPERNET.format('base-global'): Recipe(
        'base', 'global', 0.4, 80, {'w32': 1066, 'h32': 1106, 'global': 1227}
    ),
}
ONE_GPU = {
    'fpn_uniformer-small-global_1xb8-accum4-80k_ade20k-512x512': FPN.format('small-global'),
    'upernet_uniformer-small-global_1xb4-accum4-160k_ade20k-512x512': UPERNET.format(
        'small-global'
    ),
}
VARIANTS = {
    head.format(f'{arch}-global{suffix}'): head.format(f'{arch}-global')
    for head in (FPN, UPERNET)
    for arch in ('small', 'base')
    for suffix in ('_frozen-bn', '-tl')
}
LAYOUTS = {'global': ('global', None), 'w32': ('window', 32), 'h32': ('hybrid', 32)}


@pytest.fixture(autouse=True)
def _mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def layout_options(layout):
    """The options of "Layouts" in docs/segmentation.md."""
    kind, window = LAYOUTS[layout]
    options = [f'model.backbone.stage3_attn={kind}']
    return options + [f'model.backbone.window_size={window}'] * bool(window)


def build(config, device='meta'):
    from mmseg.registry import MODELS

    with torch.device(device):
        return MODELS.build(copy.deepcopy(config.model))


@functools.cache
def built(name):
    """The segmentor of config `name` on the meta device: shapes without memory or arithmetic."""
    return build(load(name))


def parameters(name):
    return sum(parameter.numel() for parameter in built(name).parameters())


def metafile_rows(name):
    rows = model_zoo.load_models(SEG / 'metafile.yml')
    return [row for row in rows if Path(row['Config']).stem == name]


def test_the_published_table_is_complete():
    assert {path.stem for path in DELTAS} == {*RECIPES, *ONE_GPU, *VARIANTS, *TOYS}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    recipe, config = RECIPES[name], load(name)
    assert config.default_scope == 'mmseg'
    assert 'mmuniformer' in config.custom_imports.imports

    backbone = config.model.backbone
    assert backbone.type == 'mmuniformer.UniFormer' + 'Light' * recipe.light
    assert (backbone.arch, backbone.drop_path_rate) == (recipe.arch, recipe.drop_path)
    if recipe.light:
        assert backbone.init_cfg.checkpoint == f'checkpoints/uniformer_{recipe.arch}_224_in1k.pth'
    else:
        wanted = ('hybrid', 14) if recipe.layout == 'h14' else ('global', 32)
        assert (backbone.stage3_attn, backbone.window_size) == wanted
        checkpoint = WEIGHTS.format(recipe.arch)
        assert backbone.init_cfg == {'type': 'Pretrained', 'checkpoint': checkpoint}

    upernet = name.startswith('upernet')
    assert config.optim_wrapper.type == 'OptimWrapper'
    assert config.optim_wrapper.optimizer == {
        'type': 'AdamW',
        'lr': 6e-5 if upernet else 2e-4,
        'betas': (0.9, 0.999),
        'weight_decay': 0.01 if upernet else 1e-4,
    }
    assert config.train_cfg.max_iters == (160000 if upernet else 80000)
    assert config.train_dataloader.batch_size == (2 if upernet else 4)
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 16 if upernet else 32}

    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb
    assert preprocessor.size == (512, 512)

    steps = {step['type']: step for step in config.train_dataloader.dataset.pipeline}
    assert steps['RandomResize']['scale'] == (2048, 512)
    assert steps['RandomResize']['ratio_range'] == (0.5, 2.0)
    assert steps['RandomCrop']['crop_size'] == (512, 512)
    assert steps['RandomFlip']['prob'] == 0.5
    assert 'PhotoMetricDistortion' in steps
    for loader in (config.val_dataloader, config.test_dataloader):
        types = [step['type'] for step in loader.dataset.pipeline]
        assert loader.dataset.pipeline[1] == {
            'type': 'Resize', 'scale': (2048, 512), 'keep_ratio': True,
        }  # fmt: skip
        assert ('ResizeToMultiple' in types) == (not upernet)
        if not upernet:  # the annotation keeps its size
            assert types.index('ResizeToMultiple') < types.index('LoadAnnotations')
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert loader.dataset.type == 'ADE20KDataset'


@pytest.mark.parametrize('name', [UPERNET.format('small-global'), FPN.format('small-global')])
def test_heads(name):
    model = load(name).model
    assert model.decode_head.norm_cfg.type == 'SyncBN'
    assert model.decode_head.num_classes == 150
    if name.startswith('fpn'):
        assert 'auxiliary_head' not in model
        assert (model.neck.out_channels, model.decode_head.channels) == (256, 128)
    else:
        auxiliary = model.auxiliary_head
        assert model.decode_head.channels == 512
        assert (auxiliary.type, auxiliary.in_index, auxiliary.in_channels) == ('FCNHead', 2, 320)
        assert auxiliary.loss_decode.loss_weight == 0.4
        assert auxiliary.norm_cfg.type == 'SyncBN'


def rates(config, iterations, shrink):
    """Learning rates of a run whose schedule is `shrink` times as short."""
    from mmengine.registry import PARAM_SCHEDULERS

    lr = config.optim_wrapper.optimizer.lr
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedulers = []
    for scheduler in copy.deepcopy(config.param_scheduler):
        assert scheduler.end % shrink == 0
        scheduler.end //= shrink
        schedulers.append(PARAM_SCHEDULERS.build(scheduler, default_args={'optimizer': optimizer}))
    seen = []
    for _ in range(iterations):
        seen.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return np.array(seen)


@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('head', ['upernet', 'fpn'])
def test_learning_rate_follows_the_formula(head, accumulate):
    shrink = 100 * accumulate
    if head == 'upernet':
        name = UPERNET.format('small-global')
        iterations, warmup, start, lr = 1600, 15, 1e-6, 6e-5
    else:
        name = FPN.format('small-global')
        iterations, warmup, start, lr = 800, 10, 0.1, 2e-4
    if accumulate > 1:
        name = next(one for one, eight in ONE_GPU.items() if eight == name)
    step = np.arange(iterations)
    rise = np.minimum(start + (1 - start) * step / (warmup - 1), 1)
    if head == 'upernet':
        decay = 1 - step / (iterations - 1)
    else:
        decay = 1e-8 + (1 - 1e-8) * (1 + np.cos(math.pi * step / iterations)) / 2
    found = rates(load(name), iterations, shrink)
    np.testing.assert_allclose(found, lr * rise * decay, rtol=1e-5, atol=lr * 1e-7)
    assert found[-1] < lr * 1e-5


@pytest.mark.parametrize('name', RECIPES)
def test_parameters_as_published(name):
    millions = parameters(name) / 1e6
    # Published as whole millions, but for the two light ones.
    assert millions == pytest.approx(RECIPES[name].params, rel=0.01, abs=0.5)
    if RECIPES[name].light:
        assert round(millions, 1) == RECIPES[name].params


@pytest.mark.parametrize('name', [path.stem for path in DELTAS])
def test_metafile_says_what_the_config_is(name):
    config = load(name)
    rows = metafile_rows(name)
    assert rows
    for row in rows:
        figures = row['Metadata']
        assert figures['Parameters (M)'] == round(parameters(name) / 1e6, 2)
        assert figures['Iterations'] == config.train_cfg.max_iters
        steps = config.optim_wrapper.get('accumulative_counts', 1)
        base = config.auto_scale_lr.base_batch_size
        gpus = {1: 8, 4: 1}[steps] if name not in TOYS else 1
        assert figures['Batch Size'] == base == config.train_dataloader.batch_size * gpus * steps
    if name in RECIPES:
        assert {row['Metadata']['Provenance'] for row in rows} == {'published'}
        found = {row['Metadata']['Test Layout']: row['Metadata'].get('FLOPs (G)') for row in rows}
        published = RECIPES[name].flops
        assert {layout: found[layout] for layout in published} == published
        assert {row['Metadata']['Training Layout'] for row in rows} == {RECIPES[name].layout}


@pytest.mark.parametrize('name', [*RECIPES, *TOYS])
def test_weight_decay_and_no_dead_keys(name):
    from mmengine.optim import build_optim_wrapper

    config, model = load(name), built(name)
    names = {parameter: key for key, parameter in model.named_parameters()}
    keys = config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    for key in keys:
        assert any(key in parameter for parameter in names.values()), f'{key!r} matches nothing'

    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decay = {
        names[parameter]: group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    base = config.optim_wrapper.optimizer.weight_decay
    norms_decay = name.startswith('fpn') and name not in TOYS
    wanted = {key: 0.0 if 'norm' in key and not norms_decay else base for key in names.values()}
    assert decay == wanted


@pytest.mark.parametrize('path', DELTAS, ids=lambda path: path.stem)
def test_delta_is_short_and_stands_on_our_own_bases(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    assert '::' not in text


def test_basenames_are_unique_for_mim():
    names = [path.name for path in (ROOT / 'configs').rglob('*.py')]
    assert len(names) == len(set(names))


@pytest.mark.parametrize('name', VARIANTS)
def test_variants_change_what_they_are_named_after(name):
    plain, variant = load(VARIANTS[name]).to_dict(), load(name).to_dict()
    backbone = variant['model']['backbone']
    if 'frozen-bn' in name:
        assert backbone.pop('norm_eval') is True
    else:
        assert backbone.pop('head_dim') == 32
        file = f'checkpoints/uniformer_{backbone["arch"]}_tl_224.pth'
        wanted = {'type': 'Pretrained', 'checkpoint': file, 'head_dim': 32}
        assert backbone.pop('init_cfg') == wanted
        del plain['model']['backbone']['init_cfg']
    assert variant == plain


def test_frozen_batchnorm_stays_in_the_backbone():
    model = built(UPERNET.format('small-global_frozen-bn')).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert model.decode_head.bottleneck.bn.training


@pytest.mark.parametrize(('name', 'eight'), ONE_GPU.items())
def test_one_gpu_recipe_takes_the_same_steps(name, eight):
    one, eight = load(name), load(eight)
    counts = one.optim_wrapper.accumulative_counts
    assert one.train_dataloader.batch_size * counts == eight.train_dataloader.batch_size * 8
    assert one.train_cfg.max_iters == eight.train_cfg.max_iters * counts
    assert one.optim_wrapper.optimizer == eight.optim_wrapper.optimizer
    assert one.model == eight.model
    checkpoints = one.default_hooks.checkpoint.interval
    assert checkpoints == eight.default_hooks.checkpoint.interval * counts
    assert one.train_cfg.val_interval == eight.train_cfg.val_interval * counts


@pytest.mark.parametrize('layout', ['global', 'w32', 'h32'])
def test_test_layout_is_one_option_on_the_same_weights(layout):
    options = ['model.backbone.arch=nano', 'model.backbone.init_cfg.checkpoint=none']
    options += ['model.neck.in_channels=[16,32,64,128]']
    name = FPN.format('small-global')
    trained = build(load(name, *options), 'cpu')
    tested = build(load(name, *options, *layout_options(layout)), 'cpu').eval()
    assert tested.load_state_dict(trained.state_dict())
    assert tested.backbone.stage3_attn == LAYOUTS[layout][0]
    trained.backbone.set_stage3_attn(*LAYOUTS[layout])
    image = torch.rand(1, 3, 96, 640, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(trained.eval()(image), tested(image))


@pytest.mark.parametrize('name', [UPERNET.format('small-global'), FPN.format('small-global')])
def test_multi_scale_and_flip_as_published(name):
    config = load(name)
    assert config.tta_model == {'type': 'SegTTAModel'}
    load_image, augment = config.tta_pipeline
    resizes, flips = augment.transforms[0], augment.transforms[-3]
    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [step.scale for step in resizes] == [(2048 * r, 512 * r) for r in ratios]
    assert all(step.keep_ratio for step in resizes)
    assert [step.prob for step in flips] == [0.0, 1.0]
    multiple = [{'type': 'ResizeToMultiple', 'size_divisor': 32}]
    assert (multiple in augment.transforms) == name.startswith('fpn')
    assert augment.transforms[-2:] == [[{'type': 'LoadAnnotations'}], [{'type': 'PackSegInputs'}]]


@pytest.fixture
def own_data(tmp_path):
    return write_own_data(tmp_path)


def test_own_label_maps_by_options_alone(own_data):
    from mmseg.registry import DATASETS

    config = load(UPERNET.format('small-global'), *own_data_options(own_data))
    for split in ('train', 'val', 'test'):
        data = DATASETS.build(config[f'{split}_dataloader'].dataset)
        assert len(data) == 3
        assert data.metainfo['classes'] == ('road', 'sky', 'tree')
        assert data.metainfo['palette'] == [[128, 64, 128], [70, 130, 180], [107, 142, 35]]
        sample = data[0]
        labels = sample['data_samples'].gt_sem_seg.data
        if split == 'train':
            assert labels.shape[-2:] == sample['inputs'].shape[-2:]
            assert max(sample['inputs'].shape) <= 512
        else:
            assert sample['inputs'].shape == (3, 512, 640)
            assert labels.shape == (1, *OWN_SIZE)
            assert torch.unique(labels).tolist() == [0, 1, 2, 255]
    assert build(config).decode_head.conv_seg.out_channels == 3


def test_class_names_may_come_from_a_file(own_data):
    from mmseg.registry import DATASETS

    names = own_data / 'classes.txt'
    names.write_text('wet road\nsky\ntree\n')
    option = f'test_dataloader.dataset.metainfo.classes={names}'
    config = load(UPERNET.format('small-global'), *own_data_options(own_data), option)
    data = DATASETS.build(config.test_dataloader.dataset)
    assert list(data.metainfo['classes']) == ['wet road', 'sky', 'tree']


def test_semantic_fpn_sees_multiples_of_32(own_data):
    from mmseg.registry import DATASETS

    config = load(FPN.format('small-global'), *own_data_options(own_data, auxiliary=False))
    picture = own_data / 'val' / 'images' / '0.png'
    cv2.imwrite(str(picture), np.zeros((80, 97, 3), np.uint8))
    cv2.imwrite(str(own_data / 'val/masks/0_label.png'), np.zeros((80, 97), np.uint8))
    sample = DATASETS.build(config.test_dataloader.dataset)[0]
    assert sample['inputs'].shape == (3, 512, 640)
    assert sample['data_samples'].gt_sem_seg.shape == (80, 97)
