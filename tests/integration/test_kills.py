"""Trainings that are killed again and again end with the weights of an uninterrupted one.

`make test-slow` runs it: 20 kills over detection, segmentation and pose, which take some minutes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing import get_context

import pytest
import torch
from config_helpers import SEG_TOYS, load
from mmengine.registry import RUNNERS

from mmuniformer.compat import load_file

pytestmark = [pytest.mark.integration, pytest.mark.minutes]

RUNS = {
    'mask-rcnn_uniformer-nano_fpn_toy': ('mmdet', 'coco', 'epoch', 4, 7),
    SEG_TOYS[0]: ('mmseg', 'ade', 'iter', 12, 7),
    'td-hm_uniformer-nano_toy-128x96': ('mmpose', 'coco', 'epoch', 6, 6),
}
"""Framework, folder of the data, unit and length of a run, and how often it is killed."""


def train(name, root, work_dir, log):
    """Train in another process, with drop path, shuffling and augmentation."""
    _, folder, unit, length, _ = RUNS[name]
    options = {
        'work_dir': str(work_dir),
        'train_dataloader.dataset.data_root': f'{root}/{folder}/',
        'val_dataloader.dataset.data_root': f'{root}/{folder}/',
        'train_dataloader.batch_size': 4,
        'model.backbone.drop_path_rate': 0.5,
        f'train_cfg.max_{unit}s': length,
        'train_cfg.val_interval': 9999,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 1,
        'default_hooks.checkpoint.save_best': None,
        'resume': True,
    }
    kind = {'mmdet': 'instances', 'mmpose': 'person_keypoints'}.get(RUNS[name][0])
    if kind:
        options['val_evaluator.ann_file'] = f'{root}/coco/annotations/{kind}_val2017.json'
    config = load(name)
    config.merge_from_dict(options)

    def run():
        with open(log, 'w') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        RUNNERS.build(config).train()

    # A fork: to import the frameworks anew takes longer than to train.
    process = get_context('fork').Process(target=run)
    process.start()
    return process


def wait_for(process, seen, seconds=240):
    """Wait until something is seen in the work dir; tell whether the process still runs."""
    end = time.monotonic() + seconds
    while process.is_alive() and not seen() and time.monotonic() < end:
        time.sleep(0.001)
    return process.is_alive()


@pytest.mark.parametrize('name', RUNS)
def test_killed_training_is_the_uninterrupted_one(toy_root, tmp_path, name):
    """Every second kill comes while a checkpoint is being written, the others at any moment."""
    framework, _, unit, length, kills = RUNS[name]
    pytest.importorskip(framework)
    chance = random.Random(0)
    work, whole = tmp_path / 'killed', tmp_path / 'whole'
    done = while_writing = 0
    while done < kills:
        logs, parts = set(work.glob('*/*.log')), set(work.glob('.part-*.pth'))
        process = train(name, toy_root, work, tmp_path / 'log')
        if done % 2:
            started = wait_for(process, lambda parts=parts: set(work.glob('.part-*.pth')) - parts)
        else:
            started = wait_for(process, lambda logs=logs: set(work.glob('*/*.log')) - logs)
            time.sleep(chance.uniform(0, 3))
        if not started:
            process.join()
            assert process.exitcode == 0, (tmp_path / 'log').read_text()
            # It came to its end before: go back to the start, the work is the same.
            for path in (*work.glob('*.pth'), work / 'last_checkpoint'):
                path.unlink()
            continue
        process.kill()
        process.join()
        done += process.exitcode == -signal.SIGKILL
        while_writing += bool(set(work.glob('.part-*.pth')) - parts)
        for path in work.glob(f'{unit}_*.pth'):
            load_file(path)  # whole, whatever happened
    for folder in (work, whole):
        process = train(name, toy_root, folder, tmp_path / 'log')
        process.join()
        assert process.exitcode == 0, (tmp_path / 'log').read_text()
    first, second = (load_file(folder / f'{unit}_{length}.pth') for folder in (whole, work))
    assert first['state_dict'].keys() == second['state_dict'].keys()
    for key, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][key]), key
    assert torch.equal(first['random_state']['torch'], second['random_state']['torch'])
    assert [path.name for path in work.glob('*.pth')] == [f'{unit}_{length}.pth']
    assert not list(work.glob('.part-*'))
    print(f'{name}: {done} kills, {while_writing} while a checkpoint was written')  # noqa: T201
    assert while_writing > 0
