"""Detection configs against the published recipes and parameter counts."""

from __future__ import annotations

import argparse
import copy
import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.config import DictAction
from mmengine.registry import DefaultScope

from mmuniformer.analysis import metafile as model_zoo

pytestmark = pytest.mark.frameworks

pytest.importorskip('mmdet')

ROOT = Path(__file__).resolve().parents[2]
DET = ROOT / 'configs' / 'det'
COCO_MINI = ROOT.parent / 'shared' / 'data' / 'coco-mini'
WEIGHTS = 'https://download.openmmlab.com/mmpose/v1/projects/uniformer/uniformer_{}_in1k.pth'


class Recipe(NamedTuple):
    arch: str
    epochs: int
    drop_path: float
    params: float  # in millions
    box_ap: float
    mask_ap: float

    @property
    def light(self):
        return self.arch.startswith('x')


MASK, CASCADE = 'mask-rcnn_uniformer-', 'cascade-mask-rcnn_uniformer-'
RECIPES = {
    f'{MASK}light-xxs_fpn_1x_coco': Recipe('xxs', 12, 0.0, 29.4, 42.8, 39.2),
    f'{MASK}light-xs_fpn_1x_coco': Recipe('xs', 12, 0.15, 35.6, 44.6, 40.9),
    f'{MASK}small-h14_fpn_amp-1x_coco': Recipe('small', 12, 0.2, 41.20, 45.6, 41.6),
    f'{MASK}small-h14_fpn_amp-ms-crop-3x_coco': Recipe('small', 36, 0.1, 41.20, 48.2, 43.4),
    f'{MASK}base-h14_fpn_amp-1x_coco': Recipe('base', 12, 0.3, 69.43, 47.4, 43.1),
    f'{MASK}base-h14_fpn_amp-ms-crop-3x_coco': Recipe('base', 36, 0.3, 69.43, 50.3, 44.8),
    f'{CASCADE}small-h14_fpn_amp-ms-crop-3x_coco': Recipe('small', 36, 0.2, 79, 52.1, 45.2),
    f'{CASCADE}base-h14_fpn_amp-ms-crop-3x_coco': Recipe('base', 36, 0.4, 107, 53.8, 46.4),
}
TOY = 'mask-rcnn_uniformer-nano_fpn_toy'
VARIANTS = [
    f'{MASK}{arch}-h14{suffix}'
    for arch in ('small', 'base')
    for suffix in ('_fpn_frozen-bn_amp-1x_coco', '-tl_fpn_amp-1x_coco')
]
ONE_GPU = f'{MASK}small-h14_fpn_1xb2-accum8-amp-1x_coco'
DELTAS = sorted(path for path in DET.rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


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


@functools.cache
def build(name):
    """The detector of config `name` on the meta device: shapes without memory or arithmetic."""
    from mmdet.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(copy.deepcopy(_load(name).model))


def parameters_in_millions(name):
    return sum(parameter.numel() for parameter in build(name).parameters()) / 1e6


def test_the_published_table_is_complete():
    assert {path.stem for path in DELTAS} == {*RECIPES, *VARIANTS, ONE_GPU, TOY}


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    recipe, config = RECIPES[name], load(name)
    assert config.default_scope == 'mmdet'
    assert config.custom_imports.imports == ['mmuniformer']

    backbone = config.model.backbone
    assert backbone.type == 'mmuniformer.UniFormer' + 'Light' * recipe.light
    assert (backbone.arch, backbone.drop_path_rate) == (recipe.arch, recipe.drop_path)
    if not recipe.light:
        assert (backbone.stage3_attn, backbone.window_size) == ('hybrid', 14)
        assert backbone.init_cfg == {
            'type': 'Pretrained',
            'checkpoint': WEIGHTS.format(recipe.arch),
        }

    amp = config.optim_wrapper.type
    assert amp == ('OptimWrapper' if recipe.light else 'AmpOptimWrapper')
    assert config.optim_wrapper.optimizer == {
        'type': 'AdamW',
        'lr': 1e-4,
        'betas': (0.9, 0.999),
        'weight_decay': 0.05,
    }
    warmup, steps = config.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.begin, warmup.end, warmup.by_epoch) == (
        'LinearLR', 0.001, 0, 500, False,
    )  # fmt: skip
    assert (steps.type, steps.milestones, steps.gamma, steps.begin, steps.end, steps.by_epoch) == (
        'MultiStepLR', {12: [8, 11], 36: [27, 33]}[recipe.epochs], 0.1, 0, recipe.epochs, True,
    )  # fmt: skip
    assert config.train_cfg.max_epochs == recipe.epochs
    assert config.train_dataloader.batch_size == 2
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 16}

    train = [step['type'] for step in config.train_dataloader.dataset.pipeline]
    assert ('RandomChoice' in train) == (recipe.epochs == 36)
    assert ('Resize' in train) == (recipe.epochs == 12)
    for loader in (config.val_dataloader, config.test_dataloader):
        resize = loader.dataset.pipeline[1]
        assert resize == {'type': 'Resize', 'scale': (1333, 800), 'keep_ratio': True}
    assert config.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert config.model.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert config.model.data_preprocessor.bgr_to_rgb


@pytest.mark.parametrize('name', [name for name in RECIPES if name.startswith('cascade')])
def test_cascade_heads(name):
    roi_head = load(name).model.roi_head
    stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    assert [head.bbox_coder.target_stds for head in roi_head.bbox_head] == stds
    for head in roi_head.bbox_head:
        assert head.type == 'ConvFCBBoxHead'
        assert (head.num_shared_convs, head.num_shared_fcs) == (4, 1)
        assert head.reg_decoded_bbox
        assert not head.reg_class_agnostic
        assert head.norm_cfg.type == 'SyncBN'
        assert head.loss_bbox == {'type': 'GIoULoss', 'loss_weight': 10.0}
    ious = [stage.assigner.pos_iou_thr for stage in load(name).model.train_cfg.rcnn]
    assert ious == [0.5, 0.6, 0.7]


@pytest.mark.parametrize('name', [*RECIPES, *VARIANTS])
def test_full_size_model_has_the_published_parameters(name):
    plain = name.replace('-tl', '').replace('_frozen-bn', '')
    assert parameters_in_millions(name) == pytest.approx(RECIPES[plain].params, rel=0.01)


@pytest.mark.parametrize(
    'row', model_zoo.load_models(DET / 'metafile.yml'), ids=lambda r: r['Name']
)
def test_metafile_tells_the_recipe(row):
    config, metadata = load(row['Name']), row['Metadata']
    assert metadata['Epochs'] == config.train_cfg.max_epochs
    assert metadata['AMP'] == (config.optim_wrapper.type == 'AmpOptimWrapper')
    accumulated = config.optim_wrapper.get('accumulative_counts', 1)
    assert metadata['Batch Size'] == config.auto_scale_lr.base_batch_size * accumulated
    scores = [value for result in row.get('Results', ()) for value in result['Metrics'].values()]
    if row['Name'] in RECIPES:
        assert scores == [RECIPES[row['Name']].box_ap, RECIPES[row['Name']].mask_ap]
        assert metadata['Provenance'] == 'published'
    else:
        assert metadata['Provenance'] == ('toy only' if row['Name'] == TOY else 'not trained')
        assert not scores, 'a score of other data would stand in the column of COCO'


@pytest.mark.parametrize(('arch', 'params'), [('small', 41.20), ('base', 69.43)])
def test_parameters_to_the_last_published_digit(arch, params):
    assert round(parameters_in_millions(f'{MASK}{arch}-h14_fpn_amp-1x_coco'), 2) == params


@pytest.mark.parametrize('name', [*RECIPES, TOY])
def test_no_weight_decay_for_norms_and_no_dead_keys(name):
    from mmengine.optim import build_optim_wrapper

    model, config = build(name).train(), load(name)
    keys = config.optim_wrapper.paramwise_cfg.custom_keys
    names = {parameter: key for key, parameter in model.named_parameters()}
    for key in keys:
        assert any(key in parameter for parameter in names.values()), f'{key!r} matches nothing'

    config.optim_wrapper.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    decay = {
        names[parameter]: group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    assert set(decay) == {key for key, parameter in model.named_parameters()}
    base = config.optim_wrapper.optimizer.weight_decay
    assert decay == {key: 0.0 if 'norm' in key else base for key in decay}
    assert sum(value == 0 for value in decay.values()) > 20


@pytest.mark.parametrize('path', DELTAS, ids=lambda path: path.stem)
def test_delta_is_short_and_stands_on_our_own_bases(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 30
    assert 'mmdet::' not in text


def test_no_base_comes_from_elsewhere():
    for path in DET.rglob('_base_/*.py'):
        assert 'mmdet::' not in path.read_text()


def test_config_names_are_unique():
    names = [path.name for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts]
    assert len(names) == len(set(names))


@pytest.mark.parametrize('arch', ['small', 'base'])
def test_variants_change_what_they_are_named_after(arch):
    plain = load(f'{MASK}{arch}-h14_fpn_amp-1x_coco').to_dict()
    frozen = load(f'{MASK}{arch}-h14_fpn_frozen-bn_amp-1x_coco').to_dict()
    labelled = load(f'{MASK}{arch}-h14-tl_fpn_amp-1x_coco').to_dict()

    assert frozen['model']['backbone'].pop('norm_eval') is True
    assert frozen['model'] == plain['model']

    backbone = labelled['model']['backbone']
    assert backbone.pop('head_dim') == 32
    assert backbone.pop('init_cfg') == {
        'type': 'Pretrained',
        'checkpoint': f'checkpoints/uniformer_{arch}_tl_224.pth',
        'head_dim': 32,
    }
    del plain['model']['backbone']['init_cfg']
    assert labelled['model'] == plain['model']


def test_one_gpu_makes_the_steps_of_eight():
    one, eight = load(ONE_GPU), load(f'{MASK}small-h14_fpn_amp-1x_coco')
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


@pytest.mark.parametrize('name', [*RECIPES, TOY])
def test_multi_scale_and_flip(name):
    config = load(name)
    assert config.tta_model.type == 'DetTTAModel'
    resizes, flips, (pack,) = config.tta_pipeline[1].transforms
    test_scale = config.test_dataloader.dataset.pipeline[1].scale
    assert [step.scale for step in resizes].index(test_scale) == 1
    assert all(step.keep_ratio for step in resizes)
    assert [step.prob for step in flips] == [0.0, 1.0]
    assert {'flip', 'flip_direction', 'img_id'} <= set(pack.meta_keys)


def test_frozen_batchnorm_keeps_its_statistics_in_training():
    model = build(f'{MASK}small-h14_fpn_frozen-bn_amp-1x_coco').train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


@pytest.mark.parametrize(
    'name', [f'{MASK}small-h14_fpn_amp-1x_coco', f'{MASK}light-xxs_fpn_1x_coco']
)
def test_weights_are_one_option_away_and_none_is_from_scratch(name):
    from mmuniformer.registry import MODELS

    key = 'model.backbone.init_cfg.checkpoint'
    backbone = load(name, f'{key}=my/weights.pth').model.backbone
    assert backbone.init_cfg.checkpoint == 'my/weights.pth'
    backbone = load(name, f'{key}=none', 'model.backbone.arch=nano').model.backbone
    backbone.type = backbone.type.split('.')[-1]
    MODELS.build(backbone).init_weights()

    backbone.init_cfg.checkpoint = 'no/such/weights.pth'
    with pytest.raises((OSError, RuntimeError), match='no/such/weights.pth'):
        MODELS.build(backbone).init_weights()


CLASSES = ('person', 'box')


def data_options(root, train, val, images, classes, heads=('bbox_head', 'mask_head')):
    """The options of "Your own data" in docs/detection.md."""
    loaders = [f'{split}_dataloader.dataset' for split in ('train', 'val', 'test')]
    return [
        *(f'{loader}.data_root={root}/' for loader in loaders),
        *(f'{loader}.data_prefix.img={images}' for loader in loaders),
        *(f'{loader}.metainfo.classes=({",".join(classes)},)' for loader in loaders),
        *(
            f'{loader}.ann_file={file}'
            for loader, file in zip(loaders, (train, val, val), strict=True)
        ),
        *(f'{split}_evaluator.ann_file={root}/{val}' for split in ('val', 'test')),
        *(f'model.roi_head.{head}.num_classes={len(classes)}' for head in heads),
    ]


@pytest.fixture
def own_data(tmp_path):
    """Two images of 640 x 480, each with a person and a box; a third category stays unused."""
    import cv2

    noise = np.random.default_rng(0)
    images, annotations = [], []
    for number in (1, 2):
        name = f'{number}.png'
        cv2.imwrite(str(tmp_path / name), noise.integers(0, 255, (480, 640, 3), np.uint8))
        images.append({'id': number, 'file_name': name, 'width': 640, 'height': 480})
        for category, (x, y, w, h) in ((7, (40, 40, 300, 400)), (9, (300, 200, 200, 200))):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': number,
                    'category_id': category,
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'iscrowd': 0,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{'id': 7, 'name': 'person'}, {'id': 8, 'name': 'cat'}, {'id': 9, 'name': 'box'}]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (tmp_path / 'own.json').write_text(json.dumps(content))
    return tmp_path


def dataset(config, split):
    from mmdet.registry import DATASETS

    return DATASETS.build(config[f'{split}_dataloader'].dataset)


def test_own_data_and_classes_by_options_alone(own_data):
    from mmdet.registry import METRICS

    options = data_options(own_data, 'own.json', 'own.json', '', CLASSES)
    config = load(f'{MASK}small-h14_fpn_amp-1x_coco', *options)
    for split in ('train', 'val', 'test'):
        data = dataset(config, split)
        assert len(data) == 2
        assert tuple(data.metainfo['classes']) == CLASSES
        sample = data[0]
        assert sample['inputs'].shape == (3, 800, 1067)
        instances = sample['data_samples'].gt_instances
        assert instances.labels.tolist() == [0, 1]
        height, width = (800, 1067) if split == 'train' else (480, 640)
        assert instances.masks.masks.shape == (2, height, width)
    METRICS.build(config.test_evaluator)
    heads = config.model.roi_head
    assert (heads.bbox_head.num_classes, heads.mask_head.num_classes) == (2, 2)


def test_class_names_with_spaces_come_from_a_file(own_data):
    names = own_data / 'classes.txt'
    names.write_text('person\nbig box\n')
    options = data_options(own_data, 'own.json', 'own.json', '', CLASSES)
    option = f'train_dataloader.dataset.metainfo.classes={names}'
    config = load(f'{MASK}small-h14_fpn_amp-1x_coco', *options, option)
    assert list(dataset(config, 'train').metainfo['classes']) == ['person', 'big box']


def test_own_classes_reach_every_head_of_a_cascade():
    heads = [f'bbox_head.{stage}' for stage in range(3)] + ['mask_head']
    options = data_options('d', 'a', 'b', '', CLASSES, heads)
    roi_head = load(f'{CASCADE}small-h14_fpn_amp-ms-crop-3x_coco', *options).model.roi_head
    assert [head.num_classes for head in roi_head.bbox_head] == [2, 2, 2]
    assert roi_head.mask_head.num_classes == 2


def test_multi_scale_pipeline_gives_the_sizes_of_the_recipe(own_data):
    options = data_options(own_data, 'own.json', 'own.json', '', CLASSES)
    data = dataset(load(f'{MASK}small-h14_fpn_amp-ms-crop-3x_coco', *options), 'train')
    np.random.seed(0)
    sizes = [tuple(data[index % 2]['inputs'].shape[1:]) for index in range(40)]
    assert {min(size) for size in sizes} <= set(range(480, 801, 32))
    assert len({min(size) for size in sizes}) > 5
    assert max(max(size) for size in sizes) <= 1333
    whole = [size for size in sizes if abs(max(size) / min(size) - 4 / 3) < 0.01]
    assert 10 <= len(whole) <= 30


@pytest.mark.skipif(not COCO_MINI.is_dir(), reason='the four COCO images are not there')
def test_four_coco_images_as_a_data_set_by_options_alone():
    file = 'person_keypoints.json'
    options = data_options(COCO_MINI, file, file, '', ['person'])
    config = load(f'{MASK}small-h14_fpn_amp-1x_coco', *options)
    train, val = dataset(config, 'train'), dataset(config, 'val')
    assert (len(train), len(val)) == (4, 4)
    assert [len(val[index]['data_samples'].gt_instances) for index in range(4)] == [1, 3, 5, 5]
    sample = train[0]['data_samples']
    assert sample.gt_instances.masks.masks.any(axis=(1, 2)).all()
