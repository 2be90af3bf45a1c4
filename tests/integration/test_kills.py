"""Trainings that are killed again and again end with the weights of an uninterrupted one.

`make test-slow` runs it: 20 kills over detection, segmentation and pose, which take some minutes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from config_helpers import SEG_TOYS

from mmuniformer.compat import load_file

pytestmark = [pytest.mark.integration, pytest.mark.minutes]

RUNS = {
    'mask-rcnn_uniformer-nano_fpn_toy': ('mmdet', 'coco', 'epoch', 4, 7),
    SEG_TOYS[0]: ('mmseg', 'ade', 'iter', 12, 7),
    'td-hm_uniformer-nano_toy-128x96': ('mmpose', 'coco', 'epoch', 6, 6),
}
"""Framework, folder of the data, unit and length of a run, and how often it is killed."""


def train(name, root, work_dir, repository):
    """Start training in another process, with drop path, shuffling and augmentation."""
    _, folder, unit, length, _ = RUNS[name]
    options = [
        f'train_dataloader.dataset.data_root={root}/{folder}/',
        f'val_dataloader.dataset.data_root={root}/{folder}/',
        'train_dataloader.batch_size=4',
        'model.backbone.drop_path_rate=0.5',
        f'train_cfg.max_{unit}s={length}',
        'train_cfg.val_interval=9999',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.checkpoint.save_best=None',
        'default_hooks.logger.interval=1',
    ]
    kind = {'mmdet': 'instances', 'mmpose': 'person_keypoints'}.get(RUNS[name][0])
    if kind:
        options.append(f'val_evaluator.ann_file={root}/coco/annotations/{kind}_val2017.json')
    return subprocess.Popen(
        [
            *(sys.executable, '-P', str(repository / 'tools' / 'train.py'), name, '--resume'),
            *('--work-dir', str(work_dir), '--cfg-options', *options),
        ],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, seen, seconds=240):
    """Wait until something is seen in the work dir; tell whether the process still runs."""
    end = time.monotonic() + seconds
    while process.poll() is None and not seen() and time.monotonic() < end:
        time.sleep(0.001)
    return process.poll() is None


@pytest.mark.parametrize('name', RUNS)
def test_killed_training_is_the_uninterrupted_one(toy_root, tmp_path, repository, name):
    """Every second kill comes while a checkpoint is being written, the others at any moment."""
    framework, _, unit, length, kills = RUNS[name]
    pytest.importorskip(framework)
    chance = random.Random(0)
    work, whole = tmp_path / 'killed', tmp_path / 'whole'
    done = while_writing = 0
    while done < kills:
        process = train(name, toy_root, work, repository)
        if done % 2:
            started = wait_for(process, lambda: list(work.glob('.part-*.pth')))
        else:
            logs = set(work.glob('*/*.log'))
            started = wait_for(process, lambda logs=logs: set(work.glob('*/*.log')) - logs)
            time.sleep(chance.uniform(0, 3))
        if not started:
            assert process.wait() == 0, process.stderr.read()
            # It came to its end before: go back to the start, the work is the same.
            for path in (*work.glob('*.pth'), work / 'last_checkpoint'):
                path.unlink()
            continue
        process.send_signal(signal.SIGKILL)
        process.communicate()
        done += 1
        while_writing += bool(list(work.glob('.part-*.pth')))
        for path in work.glob(f'{unit}_*.pth'):
            load_file(path)  # whole, whatever happened
    for folder in (work, whole):
        process = train(name, toy_root, folder, repository)
        _, said = process.communicate()
        assert process.returncode == 0, said
    first, second = (load_file(folder / f'{unit}_{length}.pth') for folder in (whole, work))
    assert first['state_dict'].keys() == second['state_dict'].keys()
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key
    assert torch.equal(first['random_state']['torch'], second['random_state']['torch'])
    assert [path.name for path in work.glob('*.pth')] == [f'{unit}_{length}.pth']
    assert not list(work.glob('.part-*'))
    with open(tmp_path / 'figures.txt', 'w') as file:
        file.write(f'{name}: {done} kills, {while_writing} while a checkpoint was written\n')
