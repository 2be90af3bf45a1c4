"""Every config against the published recipe: the row, the model, the rates of training."""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from config_helpers import (
    FPN,
    ROOT,
    SEG_TOYS,
    SHIPPED,
    UPERNET,
    decays,
    load,
    on_meta,
    rates,
    task_of,
)
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from mmuniformer.engine.runner import CheckedRunner

pytestmark = pytest.mark.frameworks

for framework in ('mmdet', 'mmseg', 'mmpose'):
    pytest.importorskip(framework)


CONFIGS = {name: path for name, path in SHIPPED.items() if task_of(name) in ('det', 'seg', 'pose')}
"""Those of dense prediction."""


class Row(NamedTuple):
    """A published row: millions of parameters, drop path at the last block, scores."""

    params: float
    drop_path: float
    scores: tuple[float, ...]


MASK, CASCADE, POSE = 'mask-rcnn_uniformer-', 'cascade-mask-rcnn_uniformer-', 'td-hm_uniformer-'
PUBLISHED = {
    f'{MASK}light-xxs_fpn_1x_coco': Row(29.4, 0.0, (42.8, 39.2)),
    f'{MASK}light-xs_fpn_1x_coco': Row(35.6, 0.15, (44.6, 40.9)),
    f'{MASK}small-h14_fpn_amp-1x_coco': Row(41.20, 0.2, (45.6, 41.6)),
    f'{MASK}small-h14_fpn_amp-ms-crop-3x_coco': Row(41.20, 0.1, (48.2, 43.4)),
    f'{MASK}base-h14_fpn_amp-1x_coco': Row(69.43, 0.3, (47.4, 43.1)),
    f'{MASK}base-h14_fpn_amp-ms-crop-3x_coco': Row(69.43, 0.3, (50.3, 44.8)),
    f'{CASCADE}small-h14_fpn_amp-ms-crop-3x_coco': Row(79, 0.2, (52.1, 45.2)),
    f'{CASCADE}base-h14_fpn_amp-ms-crop-3x_coco': Row(107, 0.4, (53.8, 46.4)),
    FPN.format('light-xxs'): Row(13.5, 0.0, (42.3,)),
    FPN.format('light-xs'): Row(19.7, 0.1, (44.4,)),
    FPN.format('small-h14'): Row(25, 0.1, (46.3,)),
    FPN.format('base-h14'): Row(54, 0.2, (47.0,)),
    # Tested in windows of 32, in the hybrid layout, globally.
    FPN.format('small-global'): Row(25, 0.1, (45.6, 46.2, 46.6)),
    FPN.format('base-global'): Row(54, 0.2, (47.0, 47.7, 48.0)),
    # One scale and several.
    UPERNET.format('small-h14'): Row(52, 0.25, (46.9, 48.0)),
    UPERNET.format('base-h14'): Row(80, 0.4, (48.9, 50.0)),
    UPERNET.format('small-global'): Row(52, 0.25, (46.6, 48.4, 47.0, 48.5, 47.6, 48.5)),
    UPERNET.format('base-global'): Row(80, 0.4, (49.1, 50.6, 49.5, 50.7, 50.0, 50.8)),
    f'{POSE}small_8xb128-210e_coco-256x192': Row(25.2, 0.2, (74.0, 90.3, 82.2, 79.5)),
    f'{POSE}small_8xb128-210e_coco-384x288': Row(25.2, 0.2, (75.9, 90.6, 83.4, 81.4)),
    f'{POSE}small_8xb64-210e_coco-448x320': Row(25.2, 0.2, (76.2, 90.6, 83.2, 81.4)),
    f'{POSE}base_8xb128-210e_coco-256x192': Row(53.5, 0.4, (75.0, 90.6, 83.0, 80.4)),
    f'{POSE}base_8xb32-210e_coco-384x288': Row(53.5, 0.5, (76.7, 90.8, 84.0, 81.4)),
    f'{POSE}base_8xb32-210e_coco-448x320': Row(53.5, 0.55, (77.4, 91.1, 84.4, 82.5)),
}
# One GPU: the config for eight that takes the same steps.
ONE_GPU = {
    f'{MASK}small-h14_fpn_1xb2-accum8-amp-1x_coco': f'{MASK}small-h14_fpn_amp-1x_coco',
    'fpn_uniformer-small-global_1xb8-accum4-80k_ade20k-512x512': FPN.format('small-global'),
    'upernet_uniformer-small-global_1xb4-accum4-160k_ade20k-512x512': UPERNET.format(
        'small-global'
    ),
    f'{POSE}small_1xb128-accum8-210e_coco-256x192': f'{POSE}small_8xb128-210e_coco-256x192',
}
FROZEN = {name: name.replace('_frozen-bn', '') for name in CONFIGS if '_frozen-bn' in name}
LABELED = {name: re.sub('-tl(?=_)', '', name) for name in CONFIGS if '-tl_' in name}
BOXES_ALONE = (
    'model.roi_head.mask_head=None',
    'model.roi_head.mask_roi_extractor=None',
    'train_dataloader.dataset.pipeline.1.with_mask=False',
    *(f'{split}_dataloader.dataset.pipeline.2.with_mask=False' for split in ('val', 'test')),
    *(f'{split}_evaluator.metric=bbox' for split in ('val', 'test')),
)
"""The options of docs/own-data.md that turn Mask R-CNN into Faster R-CNN."""
BOXES = {name: name.replace('faster-', 'mask-') for name in CONFIGS if 'faster-rcnn' in name}
VARIANTS = {**ONE_GPU, **FROZEN, **LABELED}
TOYS = [f'{MASK}nano_fpn_toy', *SEG_TOYS, f'{POSE}nano_toy-128x96']
every_config = pytest.mark.parametrize('name', CONFIGS)


@functools.cache
def metafile(task):
    return yaml.safe_load((ROOT / task / 'metafile.yml').read_text())['Models']


def rows_of(name):
    return [row for row in metafile(task_of(name)) if row['Config'].endswith(f'/{name}.py')]


# --- rows and files -----------------------------------------------------------------------------


def test_every_published_row_and_variant_is_there():
    assert set(CONFIGS) == {*PUBLISHED, *VARIANTS, *BOXES, *TOYS}
    assert (len(FROZEN), len(LABELED)) == (8, 8)
    assert set(VARIANTS.values()) <= set(PUBLISHED)


@every_config
def test_metafile_tells_scores_size_and_length(name):
    config, rows = load(name), rows_of(name)
    results = [result for row in rows for result in row.get('Results', ())]
    scores = tuple(value for result in results for value in result['Metrics'].values())
    assert sorted(scores) == sorted(PUBLISHED[name].scores if name in PUBLISHED else ())
    provenance = 'toy only' if name in TOYS else 'not trained'
    length = {'Epochs': 'max_epochs', 'Iterations': 'max_iters'}
    assert rows
    for row in rows:
        told = row['Metadata']
        assert told['Provenance'] == ('published' if name in PUBLISHED else provenance)
        params = sum(p.numel() for p in on_meta(name).parameters()) / 1e6
        assert told['Parameters (M)'] == round(params, 2)
        assert told['Batch Size'] == gpus(name) * images_a_step(config)
        assert told.get('AMP', False) == (config.optim_wrapper.type == 'AmpOptimWrapper')
        for key in length.keys() & told.keys():
            assert told[key] == config.train_cfg[length[key]]


@pytest.mark.parametrize('name', SHIPPED)
def test_config_is_short_and_stands_on_our_own_bases(name):
    text = SHIPPED[name].read_text()
    assert len(text.splitlines()) <= 30
    assert '::' not in text


def test_names_are_unique_for_mim():
    names = [path.name for path in ROOT.rglob('*.py')]
    assert len(names) == len(set(names))
    for path in ROOT.rglob('_base_/*.py'):
        assert '::' not in path.read_text(), path


# --- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', PUBLISHED)
def test_model_is_the_published_one(name):
    row, model, config = PUBLISHED[name], on_meta(name), load(name)
    params = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    # Published as whole millions for segmentation and Cascade Mask R-CNN.
    tolerance = 0.6 if row.params == int(row.params) else 0.06
    assert params == pytest.approx(row.params, abs=tolerance)
    backbone = model.backbone
    assert config.model.backbone.drop_path_rate == row.drop_path
    checkpoint = config.model.backbone.init_cfg.checkpoint
    assert re.search(rf'uniformer_{config.model.backbone.arch}_(224_)?in1k\.pth$', checkpoint)
    if 'light' not in name:
        hybrid = 'h14' in name
        assert backbone.stage3_attn == ('hybrid' if hybrid else 'global')
        assert not hybrid or backbone.window_size == 14
    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53]
    assert preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb


@every_config
def test_every_custom_key_matches_and_norms_decay_as_published(name):
    config, decay = load(name), decays(name)
    for key in config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {}):
        assert any(key in parameter for parameter in decay), f'{key!r} matches nothing'
    everywhere = name.startswith(('td-hm', 'fpn')) and name not in SEG_TOYS
    base = {'det': 0.05, 'pose': 0.01}.get(task_of(name), 1e-4 if everywhere else 0.01)
    assert decay == {key: base if everywhere or 'norm' not in key else 0 for key in decay}


@pytest.mark.parametrize('name', FROZEN)
def test_frozen_batchnorm_keeps_its_statistics_in_training(name):
    model = on_meta(name).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert on_meta(FROZEN[name]).train().backbone.blocks1[0].norm1.training


@pytest.mark.parametrize('name', VARIANTS)
def test_variants_change_what_they_are_named_after_and_nothing_else(name):
    variant, plain = load(name).to_dict(), load(VARIANTS[name]).to_dict()
    for config in (variant, plain):
        if name in ONE_GPU:
            for key in ('param_scheduler', 'train_cfg', 'auto_scale_lr', 'accumulate'):
                config.pop(key, None)
            config['optim_wrapper'].pop('accumulative_counts', None)
            config['train_dataloader'].pop('batch_size')
            config['default_hooks']['checkpoint'].pop('interval')
        if name in FROZEN:
            config['model']['backbone'].pop('norm_eval', None)
        if name in LABELED:
            backbone = config['model']['backbone']
            init = (backbone.pop('head_dim', None), backbone.pop('init_cfg').get('head_dim'))
            assert init == ((32, 32) if config is variant else (None, None))
    assert variant == plain
    if name in LABELED:
        assert on_meta(name).backbone.head_dim == 32


@pytest.mark.parametrize('name', BOXES)
def test_boxes_alone_are_the_recipe_with_the_options_of_the_guide(name):
    boxes, masks = load(name), load(BOXES[name], *BOXES_ALONE)
    assert (boxes.model.pop('type'), masks.model.pop('type')) == ('FasterRCNN', 'MaskRCNN')
    for key in ('train_pipeline', 'test_pipeline'):  # variables that nothing reads
        boxes.pop(key), masks.pop(key)
    assert boxes.to_dict() == masks.to_dict()


# --- rates --------------------------------------------------------------------------------------


def gpus(name):
    """GPUs that the name of a config tells; detection does not say 8xb2."""
    return 1 if name in ONE_GPU or name in TOYS else 8


def images_a_step(config):
    """Images of one optimizer step on one GPU."""
    return config.train_dataloader.batch_size * config.optim_wrapper.get('accumulative_counts', 1)


def scaled_rate(kind, config, devices):
    """The optimizer's rate under --auto-scale-lr in a runner of a kind, on some GPUs."""
    runner = object.__new__(kind)
    runner._train_dataloader, runner._world_size = config.train_dataloader, devices
    runner.logger, runner.param_schedulers = MMLogger.get_current_instance(), None
    settings = {**config.optim_wrapper, 'type': 'OptimWrapper'}
    settings.pop('paramwise_cfg', None)
    wrapper = build_optim_wrapper(nn.Linear(1, 1), settings)
    runner.scale_lr(wrapper, {**config.auto_scale_lr, 'enable': True})
    (rate,) = {group['lr'] for group in wrapper.optimizer.param_groups}
    return rate


@pytest.mark.parametrize('kind', [Runner, CheckedRunner])
@every_config
def test_scaled_rate_is_that_of_the_recipe_on_its_own_gpus(name, kind):
    config = load(name)
    rate = config.optim_wrapper.optimizer.lr
    assert scaled_rate(kind, config, gpus(name)) == pytest.approx(rate)
    assert scaled_rate(kind, config, 2 * gpus(name)) == pytest.approx(2 * rate)


@pytest.mark.parametrize('name', ONE_GPU.values())
def test_scaled_rate_counts_batches_that_an_option_accumulates(name):
    config = load(name, 'optim_wrapper.accumulative_counts=4')
    rate = config.optim_wrapper.optimizer.lr
    assert scaled_rate(CheckedRunner, config, 1) == pytest.approx(rate * 4 / 8)


@pytest.mark.parametrize('name', ONE_GPU)
def test_one_gpu_takes_the_steps_of_eight(name):
    one, eight = load(name), load(ONE_GPU[name])
    assert images_a_step(one) == 8 * images_a_step(eight)
    counts = one.optim_wrapper.accumulative_counts
    for part in ('max_iters', 'val_interval'):
        if 'max_iters' in one.train_cfg:
            assert one.train_cfg[part] == eight.train_cfg[part] * counts
    if 'max_epochs' in one.train_cfg:
        assert one.train_cfg == eight.train_cfg


RATES = {'det': 1e-4, 'fpn': 2e-4, 'upernet': 6e-5}


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in TOYS])
def test_rate_warms_up_and_falls_as_published(name):
    config, task = load(name), task_of(name)
    counts = config.optim_wrapper.get('accumulative_counts', 1)
    if task == 'seg':
        head = name.partition('_')[0]
        shrink = 100 * counts  # as many batches less, in all parts alike
        for scheduler in config.param_scheduler:
            assert scheduler.end % shrink == 0
            scheduler.end //= shrink
        steps, warmup, start = {'upernet': (1600, 15, 1e-6), 'fpn': (800, 10, 0.1)}[head]
        step = np.arange(steps)
        if head == 'upernet':
            factor = 1 - step / (steps - 1)
        else:
            factor = 1e-8 + (1 - 1e-8) * (1 + np.cos(math.pi * step / steps)) / 2
        rate, batches = RATES[head], None
    else:
        milestones, epochs = ((170, 200), 210) if task == 'pose' else ((8, 11), 12)
        if '3x' in name:
            milestones, epochs = (27, 33), 36
        batches, warmup, start = 50 if task == 'pose' else 500, 500 * counts, 1e-3
        step = np.arange(epochs * batches)
        factor = 0.1 ** np.searchsorted(milestones, step // batches, side='right')
        rate, steps = config.optim_wrapper.optimizer.lr, len(step)
        # 2e-3 for 8 x 128 people; the larger models and images have a quarter or a half of it.
        slow = {'8xb64': 1e-3, '8xb32': 5e-4}
        part = next((slow[key] for key in slow if key in name), 2e-3)
        assert rate == (part if task == 'pose' else RATES['det'])
    rise = np.minimum(start + (1 - start) * step / (warmup - 1), 1)
    np.testing.assert_allclose(
        rates(config, batches, steps), rate * rise * factor, rtol=1e-5, atol=rate * 1e-7
    )


@pytest.mark.parametrize('name', [f'{MASK}small-h14_fpn_amp-1x_coco', FPN.format('light-xxs')])
def test_weights_are_one_option_away_and_none_is_from_scratch(name):
    from mmuniformer.registry import MODELS

    key = 'model.backbone.init_cfg.checkpoint'
    backbone = load(name, f'{key}=none', 'model.backbone.arch=nano').model.backbone
    MODELS.build(backbone).init_weights()
    backbone.init_cfg.checkpoint = 'no/such/weights.pth'
    with pytest.raises((OSError, RuntimeError), match=r'no/such/weights\.pth'):
        MODELS.build(backbone).init_weights()
