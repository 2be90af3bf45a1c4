"""What has to work on every stack: train, test and resume by our commands, and refuse code."""

from __future__ import annotations

import os

import pytest
import torch

from mmuniformer.cli import main

pytestmark = [pytest.mark.integration, pytest.mark.stacks]

CONFIGS = {
    'det': ('mask-rcnn_uniformer-nano_fpn_toy', 'mmdet', 'coco/bbox_mAP'),
    'seg': ('fpn_uniformer-nano_toy-128x128', 'mmseg', 'mIoU'),
    'pose': ('td-hm_uniformer-nano_toy-128x96', 'mmpose', 'coco/AP'),
}
UNITS = {'seg': 'iter'}


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize('task', CONFIGS)
def test_train_test_resume_and_refuse_code(task, toy_root, tmp_path, monkeypatch, capfd):
    config, framework, metric = CONFIGS[task]
    pytest.importorskip(framework)
    unit = UNITS.get(task, 'epoch')
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'toy').symlink_to(toy_root)
    monkeypatch.chdir(tmp_path)
    changes = ['default_hooks.checkpoint.interval=1', 'train_cfg.val_interval=9']
    changes += [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
    changes += [
        f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val', 'test')
    ]

    def run(step, *arguments, **options):
        """Return the exit status and what was said; a refusal may also be raised."""
        name = f'{tmp_path}-{len(os.listdir("run")) if os.path.isdir("run") else 0}-{step}'
        given = [f'experiment_name={name}', f'visualizer.name={name}', *changes]
        given += [f'{key}={value}' for key, value in options.items()]
        arguments = [step, config, *arguments, '--work-dir', 'run', '--cfg-options', *given]
        with pytest.raises((SystemExit, Exception)) as end:
            main(arguments)
        said = capfd.readouterr()
        code = end.value.code if isinstance(end.value, SystemExit) else repr(end.value)
        return code, said.out + said.err

    def train(*arguments, length, **options):
        return run('train', *arguments, **{f'train_cfg.max_{unit}s': length, **options})

    code, said = train(length=1)
    assert code == 0, said
    checkpoint = f'run/{unit}_1.pth'
    code, said = run('test', checkpoint)
    assert code == 0, said
    assert metric in said
    code, said = train('--resume', length=2)
    assert code == 0, said
    assert f'resumed epoch: {1 if unit == "epoch" else 0}, iter: ' in said
    saved = [torch.load(f'run/{unit}_{n}.pth', weights_only=False) for n in (1, 2)]
    assert saved[1]['meta'][unit] == 2
    weights = [content['state_dict']['backbone.patch_embed1.proj.weight'] for content in saved]
    assert not torch.equal(*weights)

    mark = tmp_path / 'mark'
    torch.save({**saved[0], 'more': Payload(str(mark))}, 'bad.pth')
    for code, said in (
        run('test', 'bad.pth'),
        train('--resume', 'bad.pth', length=3),
        train(length=1, load_from='bad.pth'),
        train(
            **{'model.backbone.init_cfg.type': 'Pretrained'},
            **{'model.backbone.init_cfg.checkpoint': 'bad.pth'},
            length=1,
        ),
    ):
        assert code != 0
        assert 'bad.pth' in f'{code}{said}' or 'Weights only load failed' in f'{code}{said}', said
        assert not mark.exists()
    torch.load('bad.pth', weights_only=False)
    assert mark.is_dir()  # it would have run
