"""Two processes on CPUs, started by torchrun, learn and score as one process does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from config_helpers import SEG_TOYS, SHIPPED

from mmuniformer.compat import load_file

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DET, SEG, POSE = 'mask-rcnn_uniformer-nano_fpn_toy', SEG_TOYS[0], 'td-hm_uniformer-nano_toy-128x96'
COMMON = """
_base_ = {base!r}
custom_imports = dict(imports=['mmuniformer', 'process_hooks'], allow_failed_imports=False)
custom_hooks = [dict(type='WriteLosses', file={file!r}), *{hooks!r}]
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
    accumulative_counts={accumulate})
param_scheduler = None
auto_scale_lr = None
model = dict(backbone=dict(drop_path_rate=0.0))
log_level = 'WARNING'
"""
# What is random is off: augmentation, dropout, and the choice of boxes that the losses are for.
OWN = {
    DET: """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs')]
all_boxes = dict(sampler=dict(num=100000))
model.update(train_cfg=dict(rpn=all_boxes, rcnn=all_boxes))
""",
    SEG: """
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(128, 128), keep_ratio=False), dict(type='PackSegInputs')]
model.update(decode_head=dict(dropout_ratio=0.0))
# At 0.01 rounding grows to 2e-5 in 20 steps.
optim_wrapper['optimizer']['lr'] = 0.002
sync_bn = 'torch'
""",
    POSE: """
train_pipeline = [
    dict(type='LoadImage'), dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=(96, 128)),
    dict(type='GenerateTarget', encoder={{_base_.codec}}), dict(type='PackPoseInputs')]
sync_bn = 'torch'
""",
}
STEPS = 20


@pytest.fixture
def train(tmp_path, toy_root, repository):
    """Train a nano model in 1 or 2 processes of a batch each; return losses, metrics and output."""

    def run(name, processes, batch, steps=STEPS, accumulate=1, hooks=(), options=(), resume=()):
        framework = {DET: 'mmdet', SEG: 'mmseg', POSE: 'mmpose'}[name]
        pytest.importorskip(framework)
        folder = 'ade' if name == SEG else 'coco'
        part = f'{processes}-{accumulate}'
        result = tmp_path / f'{part}.json'
        text = COMMON.format(
            base=str(SHIPPED[name]), file=str(result), hooks=list(hooks), accumulate=accumulate
        )
        text += OWN[name]
        # Toy data hold 8 images for training and 4, here 3, for validation.
        text += f"""
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={steps}, val_interval={steps})
train_dataloader = dict(
    batch_size={batch}, sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(data_root='{toy_root}/{folder}/', pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, dataset=dict(data_root='{toy_root}/{folder}/', indices=3))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5, save_best=None))
log_processor = dict(by_epoch=False)
"""
        if name != SEG:
            file = {DET: 'instances', POSE: 'person_keypoints'}[name] + '_val2017.json'
            text += f"val_evaluator = dict(ann_file='{toy_root}/coco/annotations/{file}')\n"
            text += 'test_evaluator = val_evaluator\n'
        config = tmp_path / f'{part}.py'
        config.write_text(text)
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
        done = subprocess.run(
            [
                *(sys.executable, '-P', *torchrun * (processes > 1)),
                *(str(repository / 'tools' / 'train.py'), str(config)),
                *('--launcher', 'pytorch') * (processes > 1),
                *('--work-dir', str(tmp_path / part), *resume),
                *['--cfg-options'] * bool(options),
                *options,
            ],
            env={
                **os.environ,
                'OMP_NUM_THREADS': '1',
                'PYTHONPATH': os.pathsep.join([str(repository / 'tests'), str(repository)]),
            },
            capture_output=True,
            text=True,
        )
        done.end = time.time()
        done.work_dir = tmp_path / part
        done.config = config
        if result.exists():
            done.__dict__.update(json.loads(result.read_text()))
        return done

    return run


def differences(first, second):
    return [abs(a - b) / max(1, abs(b)) for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize('name', [SEG, POSE])
def test_two_processes_learn_as_one_with_the_same_batch(train, name):
    """BatchNorm too, which takes the statistics of both processes."""
    one, two = train(name, 1, batch=4), train(name, 2, batch=2)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr[-3000:] + two.stderr[-3000:]
    assert len(one.losses) == STEPS
    assert max(differences(two.losses, one.losses)) < 1e-5
    assert abs(one.losses[0] - one.losses[-1]) > 1e-3 * abs(one.losses[0])
    # Three images on two processes: the sampler gives one of them twice, metrics count it once.
    assert two.metrics == pytest.approx(one.metrics, abs=0.1 if name == SEG else 2e-3)
    assert len(two.metrics) > 2


@pytest.mark.minutes
def test_detection_learns_as_one_process_that_averages_batches(train):
    """Its losses are per box, so that the mean over processes is that over batches in a row."""
    one, two = train(DET, 1, batch=1, accumulate=2, steps=2 * STEPS), train(DET, 2, batch=1)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr[-3000:] + two.stderr[-3000:]
    means = [sum(one.losses[i : i + 2]) / 2 for i in range(0, 2 * STEPS, 2)]
    assert max(differences(two.losses, means)) < 1e-5
    assert abs(means[0] - means[-1]) > 1e-2


def test_killed_process_ends_the_run_with_a_message(train):
    kill = {'type': 'Kill', 'iteration': 7}
    done = train(SEG, 2, batch=1, steps=200, hooks=[kill])
    assert done.returncode != 0
    assert done.end - (done.work_dir / 'killed').stat().st_mtime < 60
    assert 'Error: Another process of this run has ended' in done.stderr
    last = done.work_dir / 'iter_5.pth'
    assert f'The last good checkpoint is {last}: train again with --resume' in done.stderr
    assert load_file(last)['meta']['iter'] == 5


def test_terminated_processes_save_together(train):
    """One of them got the signal; all end after the same iteration."""
    kill = {'type': 'Kill', 'iteration': 7, 'number': int(signal.SIGTERM)}
    done = train(SEG, 2, batch=1, steps=200, hooks=[kill])
    assert done.returncode != 0
    assert 'exitcode  : 143' in done.stderr
    assert load_file(done.work_dir / 'interrupted.pth')['meta']['iter'] == 8


def test_outputs_that_nothing_uses_are_named(train):
    done = train(SEG, 2, batch=1, steps=3, hooks=[{'type': 'UseTwoStages'}])
    assert done.returncode != 0
    assert 'Error: backbone.norm1.weight, backbone.norm1.bias' in done.stderr
    assert 'Set model.backbone.out_indices=(2, 3) and the neck to these stages' in done.stderr
