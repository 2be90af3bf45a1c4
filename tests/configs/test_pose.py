"""Pose configs against the published recipes, parameter counts and FLOPs."""

from __future__ import annotations

import argparse
import copy
import functools
import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine import Config
from mmengine.config import DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch.utils.flop_counter import FlopCounterMode

from mmuniformer.analysis import metafile as model_zoo
from mmuniformer.engine.checkpoint import check_whole_model
from mmuniformer.errors import CheckpointError

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmpose')

ROOT = Path(__file__).resolve().parents[2]
POSE = ROOT / 'configs' / 'pose'
COCO_MINI = ROOT.parent / 'shared' / 'data' / 'coco-mini'
WEIGHTS = 'https://download.openmmlab.com/mmpose/v1/projects/uniformer/uniformer_{}_in1k.pth'
DETECTIONS = 'data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json'


class Recipe(NamedTuple):
    """A row of the published table; sizes are width x height, FLOPs counted to one digit more."""

    arch: str
    size: tuple[int, int]
    sigma: int
    lr: float
    batch: int
    drop_path: float
    scores: tuple[float, float, float, float]
    params: float
    flops: float


RECIPES = {
    'td-hm_uniformer-small_8xb128-210e_coco-256x192': Recipe(
        'small', (192, 256), 2, 2e-3, 128, 0.2, (74.0, 90.3, 82.2, 79.5), 25.2, 4.67
    ),
    'td-hm_uniformer-small_8xb128-210e_coco-384x288': Recipe(
        'small', (288, 384), 3, 2e-3, 128, 0.2, (75.9, 90.6, 83.4, 81.4), 25.2, 11.07
    ),
    'td-hm_uniformer-small_8xb64-210e_coco-448x320': Recipe(
        'small', (320, 448), 3, 1e-3, 64, 0.2, (76.2, 90.6, 83.2, 81.4), 25.2, 14.73
    ),
    'td-hm_uniformer-base_8xb128-210e_coco-256x192': Recipe(
        'base', (192, 256), 2, 2e-3, 128, 0.4, (75.0, 90.6, 83.0, 80.4), 53.5, 9.19
    ),
    'td-hm_uniformer-base_8xb32-210e_coco-384x288': Recipe(
        'base', (288, 384), 3, 5e-4, 32, 0.5, (76.7, 90.8, 84.0, 81.4), 53.5, 22.05
    ),
    'td-hm_uniformer-base_8xb32-210e_coco-448x320': Recipe(
        'base', (320, 448), 3, 5e-4, 32, 0.55, (77.4, 91.1, 84.4, 82.5), 53.5, 29.54
    ),
}
SMALL, BASE = (f'td-hm_uniformer-{arch}_8xb128-210e_coco-256x192' for arch in ('small', 'base'))
TOY = 'td-hm_uniformer-nano_toy-128x96'
VARIANTS = [
    name.replace(f'-{arch}_', f'-{arch}{part}_')
    for arch, name in (('small', SMALL), ('base', BASE))
    for part in ('_frozen-bn', '-tl')
]
ONE_GPU = 'td-hm_uniformer-small_1xb128-accum8-210e_coco-256x192'
OTHERS = [*VARIANTS, ONE_GPU, TOY]
DELTAS = sorted(path for path in POSE.rglob('*.py') if '_base_' not in path.parts)


@functools.cache
def _load(name):
    (path,) = (path for path in DELTAS if path.stem == name)
    return Config.fromfile(path)


def load(name, *options):
    """Config `name` with options as they are written after --cfg-options."""
    config = copy.deepcopy(_load(name))
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    if options:
        config.merge_from_dict(parser.parse_args(['--cfg-options', *options]).cfg_options)
    return config


def build_model(config):
    from mmpose.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmpose'):
        return MODELS.build(copy.deepcopy(config.model))


@functools.cache
def build(name):
    """The model of config `name` on the meta device: shapes without memory or arithmetic."""
    with torch.device('meta'):
        return build_model(_load(name))


def parameters_in_millions(name):
    return sum(parameter.numel() for parameter in build(name).parameters()) / 1e6


def flops_in_billions(name):
    """Multiply-adds of one crop, without the flip test."""
    model = build(name).eval()
    width, height = load(name).codec.input_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.head(model.backbone(torch.empty(1, 3, height, width, device='meta')))
    return counter.get_total_flops() / 2e9


def metafile_row(name):
    rows = model_zoo.load_models(POSE / 'metafile.yml')
    (row,) = (row for row in rows if row['Name'] == name)
    return row


def test_the_published_table_is_complete():
    assert {path.stem for path in DELTAS} == {*RECIPES, *OTHERS}
    rows = {row['Name'] for row in model_zoo.load_models(POSE / 'metafile.yml')}
    assert rows == {*RECIPES, *OTHERS}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    recipe, config = RECIPES[name], load(name)
    assert config.default_scope == 'mmpose'
    assert 'mmuniformer' in config.custom_imports.imports
    assert config.model.backbone == {
        'type': 'mmuniformer.UniFormer',
        'arch': recipe.arch,
        'stage3_attn': 'global',
        'out_indices': (3,),
        'drop_path_rate': recipe.drop_path,
        'init_cfg': {'type': 'Pretrained', 'checkpoint': WEIGHTS.format(recipe.arch)},
    }
    head = config.model.head
    assert (head.type, head.in_channels, head.out_channels) == ('HeatmapHead', 512, 17)
    assert head.deconv_out_channels == (256, 256, 256)
    assert head.final_layer == {'kernel_size': 1}
    assert config.model.test_cfg == {
        'flip_test': True,
        'flip_mode': 'heatmap',
        'shift_heatmap': True,
    }
    assert config.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert config.model.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert config.model.data_preprocessor.bgr_to_rgb

    assert config.optim_wrapper.type == 'AmpOptimWrapper'
    assert config.optim_wrapper.optimizer == {
        'type': 'AdamW',
        'lr': recipe.lr,
        'betas': (0.9, 0.999),
        'weight_decay': 0.01,
    }
    warmup, steps = config.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.begin, warmup.end, warmup.by_epoch) == (
        'LinearLR', 0.001, 0, 500, False,
    )  # fmt: skip
    assert (steps.type, steps.milestones, steps.gamma, steps.begin, steps.end, steps.by_epoch) == (
        'MultiStepLR', [170, 200], 0.1, 0, 210, True,
    )  # fmt: skip
    assert config.train_cfg.max_epochs == 210
    assert config.train_dataloader.batch_size == recipe.batch
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 8 * recipe.batch}
    for loader in (config.val_dataloader, config.test_dataloader):
        assert loader.dataset.bbox_file == DETECTIONS


@pytest.mark.parametrize('name', RECIPES)
def test_one_codec_everywhere(name):
    recipe, config = RECIPES[name], load(name)
    codec = {
        'type': 'MSRAHeatmap',
        'input_size': recipe.size,
        'heatmap_size': tuple(side // 4 for side in recipe.size),
        'sigma': recipe.sigma,
    }
    assert config.codec == codec
    assert config.model.head.decoder == codec
    train = {step['type']: step for step in config.train_dataloader.dataset.pipeline}
    assert list(train) == [
        'LoadImage', 'GetBBoxCenterScale', 'RandomFlip', 'RandomHalfBody', 'RandomBBoxTransform',
        'TopdownAffine', 'GenerateTarget', 'PackPoseInputs',
    ]  # fmt: skip
    assert train['TopdownAffine']['input_size'] == recipe.size
    assert train['GenerateTarget']['encoder'] == codec
    for loader in (config.val_dataloader, config.test_dataloader):
        steps = loader.dataset.pipeline
        assert [step['type'] for step in steps] == [
            'LoadImage', 'GetBBoxCenterScale', 'TopdownAffine', 'PackPoseInputs',
        ]  # fmt: skip
        assert steps[2]['input_size'] == recipe.size


@pytest.mark.parametrize('name', [*RECIPES, *OTHERS])
def test_metafile_says_what_the_config_is(name):
    row, config = metafile_row(name), load(name)
    metadata, params, flops = row['Metadata'], parameters_in_millions(name), flops_in_billions(name)
    assert metadata['Parameters (M)'] == round(params, 2)
    assert metadata['Input Size'] == '{1} x {0}'.format(*config.codec.input_size)
    assert metadata['Epochs'] == config.train_cfg.max_epochs
    accumulated = config.optim_wrapper.get('accumulative_counts', 1)
    assert metadata['Batch Size'] == config.auto_scale_lr.base_batch_size * accumulated
    assert metadata['AMP'] == (config.optim_wrapper.type == 'AmpOptimWrapper')
    if name in RECIPES:
        recipe = RECIPES[name]
        assert params == pytest.approx(recipe.params, rel=0.01)
        assert flops == pytest.approx(recipe.flops, rel=0.005)
        assert metadata['FLOPs (G)'] == pytest.approx(recipe.flops, abs=0.075)
        assert metadata['Provenance'] == 'published'
        (result,) = row['Results']
        assert tuple(result['Metrics'].values()) == recipe.scores
        size = name.rpartition('-')[2]
        assert row['Weights'].startswith(
            f'https://download.openmmlab.com/mmpose/v1/projects/uniformer/top_down_{size}_global_'
            f'{recipe.arch}-'
        )
    else:
        assert metadata['FLOPs (G)'] == pytest.approx(flops, rel=0.01)
        assert 'Weights' not in row


@pytest.mark.parametrize('name', [SMALL, BASE, VARIANTS[0], TOY])
def test_every_parameter_gets_a_gradient(name):
    model = build_model(load(name, 'model.backbone.init_cfg.checkpoint=none')).train()
    model.head(model.backbone(torch.rand(2, 3, 64, 64))).square().mean().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert not any(key.startswith('backbone.norm') for key in model.state_dict()
                   if not key.startswith('backbone.norm4'))  # fmt: skip


@pytest.mark.parametrize('name', [*RECIPES, TOY])
def test_weight_decay_is_that_of_the_recipe_for_every_parameter(name):
    model, config = build(name).train(), load(name)
    keys = config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    for key in keys:
        assert any(key in parameter for parameter, _ in model.named_parameters()), key
    config.optim_wrapper.type = 'OptimWrapper'
    groups = build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
    assert {group['weight_decay'] for group in groups} == {0.01}
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize('path', DELTAS, ids=lambda path: path.stem)
def test_delta_is_short_and_stands_on_our_own_bases(path):
    assert len(path.read_text().splitlines()) <= 30


def test_no_base_comes_from_elsewhere():
    for path in POSE.rglob('*.py'):
        assert 'mmpose::' not in path.read_text()


def test_config_names_are_unique():
    names = [path.name for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(('arch', 'name'), [('small', SMALL), ('base', BASE)])
def test_variants_change_what_they_are_named_after(arch, name):
    plain = load(name).to_dict()
    frozen = load(name.replace(f'-{arch}_', f'-{arch}_frozen-bn_')).to_dict()
    assert frozen['model']['backbone'].pop('norm_eval') is True
    assert frozen == plain

    labelled = load(name.replace(f'-{arch}_', f'-{arch}-tl_')).to_dict()
    backbone = labelled['model']['backbone']
    assert backbone.pop('head_dim') == 32
    assert backbone.pop('init_cfg') == {
        'type': 'Pretrained',
        'checkpoint': f'checkpoints/uniformer_{arch}_tl_224.pth',
        'head_dim': 32,
    }
    del plain['model']['backbone']['init_cfg']
    assert labelled == plain


def test_frozen_batchnorm_keeps_its_statistics_in_training():
    model = build(VARIANTS[0]).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(m.training for m in model.head.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_layer_wise_decay_by_options():
    config = load(
        SMALL,
        'optim_wrapper.type=OptimWrapper',
        'optim_wrapper.constructor=mmuniformer.LayerDecayOptimWrapperConstructor',
        'optim_wrapper.paramwise_cfg.layer_decay_rate=0.75',
    )
    model = build(SMALL)
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {
        names[parameter]: group['lr']
        for group in build_optim_wrapper(model, config.optim_wrapper).optimizer.param_groups
        for parameter in group['params']
    }
    assert set(rates) == set(names.values())
    assert rates['head.final_layer.weight'] == rates['backbone.norm4.weight'] == 2e-3
    assert rates['backbone.blocks4.2.attn.qkv.weight'] == pytest.approx(2e-3 * 0.75)
    assert rates['backbone.patch_embed1.proj.weight'] == pytest.approx(2e-3 * 0.75**19)


def test_one_gpu_makes_the_steps_of_eight():
    one, eight = load(ONE_GPU), load(SMALL)
    batch = one.train_dataloader.batch_size
    assert one.optim_wrapper.accumulative_counts * batch == 8 * eight.train_dataloader.batch_size
    assert one.param_scheduler[0].end == 8 * eight.param_scheduler[0].end
    assert one.auto_scale_lr.base_batch_size == batch  # --auto-scale-lr changes nothing
    for config in (one, eight):
        config.pop('accumulate', None)
        config.optim_wrapper.pop('accumulative_counts', None)
        config.pop('auto_scale_lr')
        config.param_scheduler[0].pop('end')
    assert one.to_dict() == eight.to_dict()


def test_comforts_of_the_readme_by_options():
    config = load(
        SMALL,
        'optim_wrapper.dtype=bfloat16',
        'model.train_cfg.compute_acc=False',
        'default_hooks.ema.type=EMAHook',
        'default_hooks.ema.momentum=0.0002',
        'visualizer.vis_backends.0.type=TensorboardVisBackend',
        'model.backbone.norm_eval=True',
    )
    assert (config.optim_wrapper.type, config.optim_wrapper.dtype) == (
        'AmpOptimWrapper', 'bfloat16',
    )  # fmt: skip
    model = build_model(config)
    assert model.train_cfg == {'compute_acc': False}
    assert model.backbone.norm_eval
    assert config.default_hooks.ema == {'type': 'EMAHook', 'momentum': 0.0002}
    assert [b['type'] for b in config.visualizer.vis_backends] == ['TensorboardVisBackend']


# --- data ---------------------------------------------------------------------------------------


def dataset(config, split):
    from mmpose.registry import DATASETS

    with DefaultScope.overwrite_default_scope('mmpose'):
        return DATASETS.build(config[f'{split}_dataloader'].dataset)


def facts(data, key):
    """A field of every person that a data set found."""
    return [data.get_data_info(index)[key] for index in range(len(data))]


def data_options(root, train, val, images):
    """The options of "Your own data" in configs/pose/README.md."""
    splits = ('train', 'val', 'test')
    return [
        *(f'{split}_dataloader.dataset.data_root={root}/' for split in splits),
        *(f'{split}_dataloader.dataset.data_prefix.img={images}' for split in splits),
        f'train_dataloader.dataset.ann_file={train}',
        *(f'{split}_dataloader.dataset.ann_file={val}' for split in splits[1:]),
        *(f'{split}_dataloader.dataset.bbox_file=None' for split in splits[1:]),
        *(f'{split}_evaluator.ann_file={root}/{val}' for split in splits[1:]),
    ]


@pytest.fixture
def own_data(tmp_path):
    """Two images of 64 x 48 with the given people; returns the folder."""
    import cv2
    import numpy as np

    noise = np.random.default_rng(0)
    images = []
    for number in (1, 2):
        picture = noise.integers(0, 255, (48, 64, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{number}.png'), picture)
        images.append({'id': number, 'file_name': f'{number}.png', 'width': 64, 'height': 48})

    def write(people):
        entries = [
            {'id': number, 'image_id': 1 + number % 2, 'category_id': 1, 'iscrowd': 0, **person}
            for number, person in enumerate(people, 1)
        ]
        categories = [{'id': 1, 'name': 'person'}]
        content = {'images': images, 'annotations': entries, 'categories': categories}
        (tmp_path / 'own.json').write_text(json.dumps(content))
        return tmp_path

    return write


def person(box=(8, 8, 24, 32), points=17, visibility=2):
    """A person whose first key points are annotated, on the diagonal of the box."""
    left, top, width, height = box
    keypoints = []
    for index in range(17):
        shown = index < points
        place = [left + width * index / 17, top + height * index / 17, visibility]
        keypoints += place if shown else [0, 0, 0]
    return {
        'bbox': list(box),
        'area': max(width, 0) * max(height, 0),
        'num_keypoints': points,
        'keypoints': keypoints,
    }


def test_detected_boxes_by_default_and_annotated_ones_by_one_option(own_data):
    root = own_data([person(), person()])
    detections = root / 'boxes.json'
    boxes = [
        {'image_id': 1, 'category_id': 1, 'bbox': [4, 4, 30, 40], 'score': 0.5},
        {'image_id': 1, 'category_id': 1, 'bbox': [8, 8, 24, 32], 'score': 0.75},
        {'image_id': 2, 'category_id': 3, 'bbox': [8, 8, 24, 32], 'score': 1.0},
    ]
    detections.write_text(json.dumps(boxes))
    options = [option for option in data_options(root, 'own.json', 'own.json', '')
               if 'bbox_file' not in option]  # fmt: skip
    options += [f'{split}_dataloader.dataset.bbox_file={detections}' for split in ('val', 'test')]

    detected = dataset(load(SMALL, *options), 'test')
    assert facts(detected, 'bbox_score') == [0.5, 0.75]  # people only
    config = load(SMALL, *options, 'test_dataloader.dataset.bbox_file=None')
    assert config.test_dataloader.dataset.bbox_file is None
    assert config.val_dataloader.dataset.bbox_file == str(detections)
    annotated = dataset(config, 'test')
    assert facts(annotated, 'id') == [2, 1]
    assert load(SMALL, 'test_dataloader.dataset.bbox_file=None').val_dataloader.dataset.bbox_file


def test_people_without_key_points_or_without_a_box_are_left_out(own_data):
    nowhere = person()
    del nowhere['bbox']
    root = own_data(
        [
            person(),
            person(points=0),
            person(box=(8, 8, 0, 32)),
            person(box=(8, 8, 24, 0)),
            person(box=(8, 8, -5, 32)),
            person(box=(90, 8, 24, 32)),  # beside the image
            {**person(), 'iscrowd': 1},
            {'bbox': [8, 8, 24, 32], 'area': 768},
            nowhere,
            person(points=1),
            person(visibility=1),  # occluded points are annotated points
        ]
    )
    config = load(SMALL, *data_options(root, 'own.json', 'own.json', ''))
    for split in ('train', 'val', 'test'):
        assert sorted(facts(dataset(config, split), 'id')) == [1, 10, 11]
    for item in dataset(config, 'train'):
        heatmaps = item['data_samples'].gt_fields.heatmaps
        assert item['inputs'].shape == (3, 256, 192)
        assert heatmaps.shape == (17, 64, 48)
        assert heatmaps.isfinite().all()


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason='the four COCO images are not there')
def test_four_coco_images_as_a_data_set_by_options_alone():
    file = 'person_keypoints.json'
    config = load(SMALL, *data_options(COCO_MINI, file, file, ''))
    train, test = dataset(config, 'train'), dataset(config, 'test')
    assert (len(train), len(test)) == (12, 12)  # of 14 people two have no key points
    assert test[0]['inputs'].shape == (3, 256, 192)


# --- weights and numbers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('model.backbone.arch=small', 'model.head.in_channels=512'), 'arch'),
        (('model.head.out_channels=5',), '5 keypoints in the file, 17 in the model'),
        (('model.head.deconv_out_channels=(32,32,32)',), 'does not fit the heads'),
    ],
)
def test_refuses_a_checkpoint_of_another_model(change, message):
    options = 'model.backbone.init_cfg.checkpoint=none'
    ours = build_model(load(TOY, options))
    theirs = build_model(load(TOY, options, *change))
    with pytest.raises(CheckpointError, match=message):
        check_whole_model(ours, {'state_dict': theirs.state_dict()}, 'wrong.pth')
    check_whole_model(ours, {'state_dict': ours.state_dict()}, 'right.pth')


def test_checkpoints_of_the_older_framework_have_another_name_for_the_head():
    model = build_model(load(TOY, 'model.backbone.init_cfg.checkpoint=none'))
    old = {key.replace('head.', 'keypoint_head.', 1) if key.startswith('head.') else key: value
           for key, value in model.state_dict().items()}  # fmt: skip
    check_whole_model(model, {'state_dict': old}, 'old.pth')
    other = build_model(load(TOY, 'model.backbone.init_cfg.checkpoint=none'))
    other.load_state_dict(old)
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_loss_in_low_precision_is_close_to_fp32(own_data, dtype):
    from mmengine.dataset import pseudo_collate

    root = own_data([person(), person()])
    # mmpose's accuracy in training goes through numpy, which has no bfloat16.
    options = data_options(root, 'own.json', 'own.json', '')
    config = load(TOY, *options, 'model.train_cfg.compute_acc=False')
    batch = pseudo_collate(list(dataset(config, 'train')))
    torch.manual_seed(0)
    model = build_model(config).train()
    batch = model.data_preprocessor(batch, training=True)
    losses = {}
    for kind in (torch.float32, dtype):
        with torch.autocast('cpu', kind, enabled=kind != torch.float32):
            losses[kind] = model.loss(**batch)['loss_kpt']
        losses[kind].backward()
    assert losses[dtype].item() == pytest.approx(losses[torch.float32].item(), rel=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
