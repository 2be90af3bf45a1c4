"""Segmentation from start to end: every recipe reduced, the documented options, own data."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from amp_on_cpu import AmpOptimWrapperOnCPU
from config_helpers import (
    FPN,
    LOADERS,
    SEG_TOYS,
    UPERNET,
    load,
    own_data_options,
    write_own_data,
)
from mmengine.registry import RUNNERS
from PIL import Image
from torch import nn

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.compat import load_file
from mmuniformer.errors import UserError

pytest.importorskip('mmseg')
pytestmark = pytest.mark.slow

PUBLISHED = [
    FPN.format('light-xxs'),
    FPN.format('light-xs'),
    *(
        head.format(f'{arch}-{layout}')
        for head in (FPN, UPERNET)
        for arch in ('small', 'base')
        for layout in ('h14', 'global')
    ),
]
VARIANTS = [
    FPN.format('small-global_frozen-bn'),
    UPERNET.format('small-global-tl'),
    'fpn_uniformer-small-global_1xb8-accum4-80k_ade20k-512x512',
]
FPN_TOY, UPERNET_TOY = SEG_TOYS
# Two iterations of two small crops from scratch, in this process; no weights on the disk.
REDUCED = [
    'model.backbone.init_cfg.checkpoint=none',
    'model.data_preprocessor.size=(64,64)',
    'train_dataloader.batch_size=2',
    *(f'{loader.split(".")[0]}.num_workers=0' for loader in LOADERS),
    *(f'{loader.split(".")[0]}.persistent_workers=False' for loader in LOADERS),
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
    *(f'{loader}.pipeline.1.scale=(64,64)' for loader in LOADERS[1:]),
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.save_last=False',
    'log_level=ERROR',
]


def toy_options(root):
    """Toy scenes for a config of ADE20K."""
    return [
        *(f'{loader}.type=BaseSegDataset' for loader in LOADERS),
        *(f'{loader}.data_root={root}/ade/' for loader in LOADERS),
        *(f'{loader}.metainfo.classes=(background,person,box,ball)' for loader in LOADERS),
    ]


@pytest.fixture
def runner(tmp_path):
    """Make runners of configs, each with a name and a folder of its own."""
    made = []

    def make(config):
        config.work_dir, config.launcher = str(tmp_path / f'work{len(made)}'), 'none'
        config.experiment_name = config.visualizer.name = f'{tmp_path.name}_{len(made)}'
        made.append(RUNNERS.build(config))
        return made[-1]

    return make


def losses(runner):
    return [float(value) for value in runner.message_hub.get_scalar('train/loss')._log_history]


@pytest.mark.parametrize('name', [*PUBLISHED, *VARIANTS])
def test_two_iterations_and_an_evaluation(name, runner, toy_root):
    classes = ['model.decode_head.num_classes=4']
    classes += ['model.auxiliary_head.num_classes=4'] * name.startswith('upernet')
    run = runner(load(name, *REDUCED, *toy_options(toy_root), *classes))
    model = run.model
    # One process: mmengine has replaced SyncBN.
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    run.train()
    assert run.iter == 2
    assert np.isfinite(losses(run)).all()
    assert {'val/mIoU', 'val/mAcc', 'val/aAcc'} <= set(run.message_hub.log_scalars)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_documented_options_of_training(runner, toy_root, tmp_path):
    options = [
        'train_cfg.max_iters=4',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.save_last=True',
        'default_hooks.ema.type=EMAHook',
        'default_hooks.ema.momentum=0.5',
        'visualizer.vis_backends.0.type=TensorboardVisBackend',
        'optim_wrapper.accumulative_counts=2',
        'model.backbone.norm_eval=True',
        'model.backbone.with_cp=True',
    ]
    run = runner(load(FPN_TOY, *REDUCED, *toy_options(toy_root), *options))
    start = copy.deepcopy(run.model.state_dict())
    run.train()

    assert run.optim_wrapper._inner_count == 4
    steps = run.optim_wrapper.optimizer.state_dict()['state'][0]['step']
    assert steps == 2
    checkpoint = load_file(tmp_path / 'work0' / 'iter_4.pth')
    name = 'backbone.blocks3.0.attn.qkv.weight'
    averaged, trained = checkpoint['state_dict'][name], checkpoint['ema_state_dict']
    assert not torch.equal(averaged, trained[f'module.{name}'])
    assert not torch.equal(averaged, start[name])
    norm = 'backbone.blocks1.0.norm1.running_mean'
    assert torch.equal(checkpoint['state_dict'][norm], start[norm])
    assert list((tmp_path / 'work0').rglob('events.out.tfevents*'))


@pytest.mark.parametrize('name', SEG_TOYS)
def test_bfloat16_trains(name, runner, toy_root):
    wrapper = f'optim_wrapper.type={AmpOptimWrapperOnCPU.__name__}'
    options = [*REDUCED, *toy_options(toy_root), wrapper, 'optim_wrapper.dtype=bfloat16']
    run = runner(load(name, *options))
    inside = set()
    layer = run.model.decode_head.conv_seg
    layer.register_forward_hook(lambda _, __, out: inside.add(out.dtype))
    run.train()
    assert inside == {torch.bfloat16, torch.float32}  # training, evaluation
    assert np.isfinite(losses(run)).all()


@pytest.mark.parametrize('name', SEG_TOYS)
def test_multi_scale_and_flip(name, runner, toy_root):
    from mmengine.config import ConfigDict

    config = load(name, *REDUCED, *toy_options(toy_root))
    # What --tta does.
    config.model = ConfigDict(**config.tta_model, module=config.model)
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    run = runner(config)
    metrics = run.test()
    assert metrics['aAcc'] > 0
    batch = next(iter(run.test_dataloader))
    sizes = [tuple(inputs[0].shape[-2:]) for inputs in batch['inputs']]
    assert sorted(sizes) == [(96, 96)] * 2 + [(128, 128)] * 2 + [(160, 160)] * 2
    (merged, *_) = run.model.test_step(batch)
    assert merged.pred_sem_seg.shape == (128, 128)


def predictions(config, images):
    with scope_of(config), torch.no_grad():
        torch.manual_seed(0)
        (sample,) = build_model(config)(images, mode='predict')
    return sample.seg_logits.data, sample.pred_sem_seg.data


@pytest.mark.parametrize('name', SEG_TOYS)
def test_sliding_window(name):
    images = torch.rand(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))

    def slide(side, stride):
        return load(
            name,
            'model.test_cfg.mode=slide',
            f'model.test_cfg.crop_size={side},{side}',
            f'model.test_cfg.stride={stride},{stride}',
        )

    whole, labels = predictions(load(name), images)
    once, _ = predictions(slide(160, 107), images)
    torch.testing.assert_close(once, whole)
    parts, part_labels = predictions(slide(64, 43), images)
    assert parts.shape == whole.shape == (4, 96, 160)
    assert part_labels.shape == labels.shape == (1, 96, 160)
    assert not torch.allclose(parts, whole)
    assert torch.isfinite(parts).all()


@pytest.fixture
def own_config(tmp_path):
    """UperNet for a folder of label maps, changed by options alone."""
    root = write_own_data(tmp_path / 'own')
    return load(UPERNET_TOY, *REDUCED, *own_data_options(root)), root


def test_own_label_maps_train(own_config, runner):
    config, _ = own_config
    run = runner(config)
    run.train()
    assert run.val_dataloader.dataset.metainfo['classes'] == ('road', 'sky', 'tree')
    assert 'val/mIoU' in run.message_hub.log_scalars
    assert run.model.decode_head.conv_seg.out_channels == 3


@pytest.mark.parametrize('moment', ['train', 'val', 'test'])
def test_labels_beyond_the_classes_stop_the_run(own_config, runner, moment):
    config, root = own_config
    for file in (root / ('train' if moment == 'train' else 'val') / 'masks').iterdir():
        Image.fromarray(np.full((80, 100), 3, np.uint8)).save(file)
    run = runner(config)
    with pytest.raises(UserError, match=r'_label\.png holds labels .*: 3 as'):
        run.test() if moment == 'test' else run.train()
    assert run.iter == (2 if moment == 'val' else 0)


def test_label_maps_of_colors_stop_the_run_before_it_starts(own_config, runner):
    config, root = own_config
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(root / 'val/masks/1_label.png')
    with pytest.raises(UserError, match=r'1_label\.png holds colou?rs'):
        runner(config).train()
