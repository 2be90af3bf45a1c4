"""Every pose config trains and evaluates on toy people; the comforts around training do, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from amp_on_cpu import AmpOptimWrapperOnCPU
from mmengine import Config
from mmengine.registry import RUNNERS

from mmuniformer.compat import load_file
from mmuniformer.errors import CheckpointError

pytest.importorskip('mmpose')
pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
POSE = ROOT / 'configs' / 'pose'
CONFIGS = sorted(path for path in POSE.rglob('*.py') if '_base_' not in path.parts)
TOY = POSE / 'toy' / 'td-hm_uniformer-nano_toy-128x96.py'
PEOPLE = 'annotations/person_keypoints_{}2017.json'


def reduced(path, data_root, work_dir, **changes):
    """A config on toy data, at its own input size, with a tiny model: two iterations an epoch."""
    config = Config.fromfile(path)
    config.work_dir = config.experiment_name = config.visualizer.name = str(work_dir)
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{data_root}/'
        if split == 'train':
            loader.dataset.indices = 8
        else:
            loader.dataset.bbox_file = None
            config[f'{split}_evaluator'].ann_file = f'{data_root}/{PEOPLE.format("val")}'
    options = {
        'model.backbone.arch': 'nano',
        'model.backbone.init_cfg.checkpoint': 'none',
        'model.head.in_channels': 128,
        'model.head.deconv_out_channels': (16, 16, 16),
        'optim_wrapper.type': 'OptimWrapper',  # mixed precision needs a GPU
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'log_level': 'WARNING',
        **changes,
    }
    config.merge_from_dict(options)
    return config


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_two_iterations_and_an_evaluation(path, toy_root, tmp_path):
    runner = RUNNERS.build(reduced(path, toy_root / 'coco', tmp_path))
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 2
    after = runner.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    learned = dict(runner.model.named_parameters())
    assert not any(torch.equal(before[key], after[key]) for key in learned if 'bias' not in key)
    assert 'val/coco/AP' in runner.message_hub.log_scalars
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_evaluation_on_detected_boxes_from_a_file(toy_root, tmp_path):
    people = json.loads((toy_root / 'coco' / PEOPLE.format('val')).read_text())['annotations']
    boxes = [{key: person[key] for key in ('image_id', 'category_id', 'bbox')} for person in people]
    file = tmp_path / 'boxes.json'
    file.write_text(json.dumps([{**box, 'score': 0.5} for box in boxes]))
    config = reduced(TOY, toy_root / 'coco', tmp_path)
    torch.save(RUNNERS.build(config).model.state_dict(), tmp_path / 'weights.pth')

    scores = []
    for bbox_file in (None, str(file)):
        config = reduced(
            TOY, toy_root / 'coco', tmp_path / str(bbox_file is None),
            **{'test_dataloader.dataset.bbox_file': bbox_file},
            load_from=str(tmp_path / 'weights.pth'),
        )  # fmt: skip
        scores.append(RUNNERS.build(config).test())
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)  # the same boxes


def test_accumulation_averaging_layer_decay_and_tensorboard_by_options(toy_root, tmp_path):
    config = reduced(
        TOY, toy_root / 'coco', tmp_path,
        **{
            'optim_wrapper.accumulative_counts': 2,
            'optim_wrapper.constructor': 'mmuniformer.LayerDecayOptimWrapperConstructor',
            'optim_wrapper.paramwise_cfg.layer_decay_rate': 0.75,
            'default_hooks.ema.type': 'EMAHook',
            'default_hooks.logger.interval': 1,
            'visualizer.vis_backends.0.type': 'TensorboardVisBackend',
        },
    )  # fmt: skip
    config.param_scheduler = []
    runner = RUNNERS.build(config)
    runner.train()
    steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()}
    assert steps == {1}  # two batches, one step
    rates = [group['lr'] for group in runner.optim_wrapper.optimizer.param_groups]
    assert max(rates) / min(rates) == pytest.approx(0.75**-9)
    checkpoint = load_file(tmp_path / 'epoch_1.pth')
    assert 'module.head.final_layer.weight' in checkpoint['ema_state_dict']
    assert list(tmp_path.rglob('events.out.tfevents.*'))


def test_bfloat16_trains(toy_root, tmp_path):
    changes = {'optim_wrapper.type': AmpOptimWrapperOnCPU.__name__}
    changes |= {'optim_wrapper.dtype': 'bfloat16'}
    config = reduced(TOY, toy_root / 'coco', tmp_path, **changes)
    dtypes = set()
    runner = RUNNERS.build(config)
    layer = runner.model.head.final_layer
    layer.register_forward_hook(lambda _, __, out: dtypes.add(out.dtype))
    runner.train()
    assert dtypes == {torch.bfloat16, torch.float32}  # training, evaluation
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_a_checkpoint_of_another_size_is_refused(toy_root, tmp_path):
    other = reduced(TOY, toy_root / 'coco', tmp_path, **{'model.head.out_channels': 5})
    file = tmp_path / 'five.pth'
    torch.save({'state_dict': RUNNERS.build(other).model.state_dict()}, file)
    config = reduced(TOY, toy_root / 'coco', tmp_path / 'test', load_from=str(file))
    with pytest.raises(CheckpointError, match='5 keypoints in the file, 17 in the model'):
        RUNNERS.build(config).test()
