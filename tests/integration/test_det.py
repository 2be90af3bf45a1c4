"""Every detection config trains and evaluates on toy scenes; the documented options do, too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from amp_on_cpu import AmpOptimWrapperOnCPU
from mmengine import Config
from mmengine.config import ConfigDict
from mmengine.registry import RUNNERS
from torch import nn

from mmuniformer.compat import load_file

pytest.importorskip('mmdet')
pytestmark = [pytest.mark.integration, pytest.mark.slow]

DET = Path(__file__).resolve().parents[2] / 'configs' / 'det'
CONFIGS = sorted(path for path in DET.rglob('*.py') if '_base_' not in path.parts)
TOY = DET / 'toy' / 'mask-rcnn_uniformer-nano_fpn_toy.py'
CLASSES = ('person', 'box', 'ball')
SIDE = 128


def shrink(settings):
    """Divide the sizes of a pipeline, wherever they are in it, by those of COCO to the toys'."""
    if isinstance(settings, dict):
        if 'scale' in settings:
            settings['scale'] = (SIDE, SIDE)
        if 'scales' in settings:
            settings['scales'] = [(side // 6, 1333 // 6) for side, _ in settings['scales']]
        if 'crop_size' in settings:
            settings['crop_size'] = (64, 100)
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for value in settings:
            shrink(value)


def thin_heads(model):
    """Give the heads the toy's classes and few channels, and few boxes to learn from."""
    roi = model.roi_head
    boxes = roi.bbox_head if isinstance(roi.bbox_head, list) else [roi.bbox_head]
    model.neck.out_channels = 32
    model.rpn_head.update(in_channels=32, feat_channels=32)
    for extractor in filter(None, (roi.bbox_roi_extractor, roi.mask_roi_extractor)):
        extractor.out_channels = 32
    for head in filter(None, (*boxes, roi.mask_head)):  # Faster R-CNN has none for masks
        head.update(in_channels=32, num_classes=len(CLASSES))
        head.update({key: 32 for key in ('conv_out_channels', 'fc_out_channels') if key in head})
    steps = model.train_cfg.rcnn
    for step in steps if isinstance(steps, list) else [steps]:
        step.sampler.num = 16


def reduced(path, data_root, work_dir, **changes):
    """A config on toy scenes with a nano backbone: two iterations an epoch."""
    config = Config.fromfile(path)
    config.work_dir = config.experiment_name = config.visualizer.name = str(work_dir)
    val = 'annotations/instances_val2017.json'
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f'{data_root}/', metainfo=dict(classes=CLASSES))
        shrink(loader.dataset.pipeline)
        if split == 'train':
            loader.dataset.update(indices=4, filter_cfg=None)
        else:
            config[f'{split}_evaluator'].ann_file = f'{data_root}/{val}'
    thin_heads(config.model)
    options = {
        'model.backbone.arch': 'nano',
        'model.backbone.init_cfg.checkpoint': 'none',
        'model.neck.in_channels': [16, 32, 64, 128],
        'model.train_cfg.rpn_proposal.max_per_img': 50,
        'model.test_cfg.rpn.max_per_img': 50,
        'model.test_cfg.rcnn.max_per_img': 10,
        'optim_wrapper.type': 'OptimWrapper',  # mixed precision needs a GPU
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'log_level': 'WARNING',
        **changes,
    }
    config.merge_from_dict(options)
    return config


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_two_iterations_and_an_evaluation(path, toy_root, tmp_path):
    changes = {}
    if 'accum' in path.stem:  # a step within the two iterations
        changes['optim_wrapper.accumulative_counts'] = 2
    runner = RUNNERS.build(reduced(path, toy_root / 'coco', tmp_path, **changes))
    # One process: mmengine has replaced SyncBN.
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in runner.model.modules())
    before = {key: value.clone() for key, value in runner.model.named_parameters()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    for part in ('backbone.blocks1', 'backbone.blocks4', 'neck', 'rpn_head', 'roi_head'):
        assert any(not torch.equal(before[key], after[key]) for key in before if part in key), part
    scored = {'bbox', 'segm'} if runner.model.with_mask else {'bbox'}
    assert {f'val/coco/{kind}_mAP' for kind in scored} <= set(runner.message_hub.log_scalars)
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_documented_options_of_training(toy_root, tmp_path):
    config = reduced(
        TOY, toy_root / 'coco', tmp_path,
        **{
            'optim_wrapper.accumulative_counts': 2,
            'optim_wrapper.constructor': 'mmuniformer.LayerDecayOptimWrapperConstructor',
            'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.75,
            'default_hooks.ema.type': 'EMAHook',
            'default_hooks.ema.momentum': 0.5,
            'default_hooks.logger.interval': 1,
            'visualizer.vis_backends.0.type': 'TensorboardVisBackend',
            'model.backbone.norm_eval': True,
            'model.backbone.with_cp': True,
        },
    )  # fmt: skip
    config.param_scheduler = []
    runner = RUNNERS.build(config)
    norm = 'backbone.blocks1.0.norm1.running_mean'
    before = runner.model.state_dict()[norm].clone()
    runner.train()
    steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()}
    assert steps == {1}  # two batches, one step
    rates = [group['lr'] for group in runner.optim_wrapper.optimizer.param_groups]
    assert min(rates) < 0.2 * max(rates)
    checkpoint = load_file(tmp_path / 'epoch_1.pth')
    key = 'backbone.blocks4.0.attn.qkv.weight'
    trained = checkpoint['ema_state_dict'][f'module.{key}']
    assert not torch.equal(checkpoint['state_dict'][key], trained)
    assert torch.equal(checkpoint['state_dict'][norm], before)
    assert list(tmp_path.rglob('events.out.tfevents.*'))


def test_bfloat16_trains(toy_root, tmp_path):
    """mmcv's operators know no bf16: what goes into them is float32."""
    changes = {'optim_wrapper.type': AmpOptimWrapperOnCPU.__name__}
    changes |= {'optim_wrapper.dtype': 'bfloat16'}
    runner = RUNNERS.build(reduced(TOY, toy_root / 'coco', tmp_path, **changes))
    inside, between = set(), set()
    head = runner.model.roi_head
    head.bbox_head.fc_cls.register_forward_hook(lambda _, __, out: inside.add(out.dtype))
    for extractor in (head.bbox_roi_extractor, head.mask_roi_extractor):
        extractor.register_forward_hook(lambda _, inputs, __: between.add(inputs[0][0].dtype))
    runner.train()
    assert inside == {torch.bfloat16, torch.float32}  # training, evaluation
    assert between == {torch.float32}
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_multi_scale_and_flip(toy_root, tmp_path):
    """mmdet merges boxes only, so the mask head stays out."""
    options = {'model.roi_head.mask_head': None, 'test_evaluator.metric': 'bbox'}
    plain = reduced(TOY, toy_root / 'coco', tmp_path)
    weights = tmp_path / 'weights.pth'
    model = RUNNERS.build(plain).model
    torch.save({'state_dict': model.state_dict()}, weights)
    config = reduced(TOY, toy_root / 'coco', tmp_path / 'tta', **options, load_from=str(weights))
    config.experiment_name = config.visualizer.name = f'{tmp_path}/tta'
    # What --tta does.
    config.model = ConfigDict(**config.tta_model, module=config.model)
    config.test_dataloader.dataset.pipeline = config.tta_pipeline
    runner = RUNNERS.build(config)
    metrics = runner.test()
    assert 'coco/bbox_mAP' in metrics
    assert 'coco/segm_mAP' not in metrics
    batch = next(iter(runner.test_dataloader))
    sizes = sorted(tuple(inputs[0].shape[-2:]) for inputs in batch['inputs'])
    assert sizes == [(96, 96)] * 2 + [(128, 128)] * 2 + [(160, 160)] * 2
    straight, mirrored = batch['inputs'][0][0], batch['inputs'][1][0]
    assert torch.equal(straight, mirrored.flip(-1)) or straight.shape != mirrored.shape
