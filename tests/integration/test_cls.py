"""Recipes of image classification train, test and predict on folders of images, made tiny here."""

import functools
import json
import re
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mmuniformer.cli import group
from mmuniformer.compat import load_file

pytest.importorskip('mmpretrain', reason='needs mmpretrain: make install')
pytestmark = [pytest.mark.integration, pytest.mark.frameworks]

CLASSES = ('blue', 'green', 'red')
SIDE = 64
PLAIN = 'uniformer-small_8xb128-300e_in1k'
LIGHT = 'uniformer-light-xxs_8xb512-600e_in1k-128px'


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three images a class, in folders that are named as the classes; the current folder."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for index, name in enumerate(CLASSES):
            (tmp_path / 'mine' / split / name).mkdir(parents=True)
            for number in range(3):
                image = random.integers(0, 60, (80, 96, 3), np.uint8)
                image[..., index] += 190
                cv2.imwrite(str(tmp_path / 'mine' / split / name / f'{number}.png'), image)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def documented(heading):
    """The options of the command below a heading of docs/own-data.md, as bash reads it."""
    page = (Path(__file__).parents[2] / 'docs' / 'own-data.md').read_text()
    section = page.partition(f'\n## {heading}\n')[2]
    text = re.search(r'--cfg-options (.*?)```', section, re.DOTALL)[1]
    text = text.replace('/data/mine', 'mine').replace('(cat,dog)', '(blue,green,red)')
    text = text.replace('num_classes=2', 'num_classes=3')
    printed = ['bash', '-c', f"printf '%s\\n' {text}"]
    return subprocess.run(printed, capture_output=True, text=True, check=True).stdout.split()


def options_of(name, batch=2):
    """Those options, and what makes a recipe tiny."""
    return [
        *(option for option in documented('Image folders')
          if name == PLAIN or 'loss.num_classes' not in option),
        *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test') for option in (
            'num_workers=0', 'persistent_workers=False', f'batch_size={batch}',
        )),
        *('model.backbone.arch=nano', 'model.head.in_channels=128'),
        f'train_dataloader.dataset.pipeline.1.scale={SIDE}',
        *('optim_wrapper.type=OptimWrapper', 'log_level=WARNING', 'train_cfg.max_epochs=1'),
        *('default_hooks.checkpoint.interval=1', 'randomness.seed=0'),
    ]  # fmt: skip


def run(*words):
    """Run a command to its end."""
    result = CliRunner().invoke(group, list(map(str, words)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def train(name, folder, *options):
    """Train for an epoch; return the checkpoint."""
    given = ['--cfg-options', *options_of(name), *options]
    result = run('train', name, '--work-dir', folder / 'work', *given)
    assert result.exit_code == 0, result.output
    return load_file(folder / 'work' / 'epoch_1.pth')


@pytest.mark.parametrize('name', [PLAIN, LIGHT])
def test_recipes_train_test_and_predict(name, folders):
    saved = train(name, folders)
    trained, average = saved['state_dict'], saved['ema_state_dict']
    assert average['steps'] == 4
    key = 'backbone.blocks3.0.mlp.fc1.weight'
    assert not torch.equal(trained[key], average[f'module.{key}'])
    checkpoint = folders / 'work' / 'epoch_1.pth'
    config = folders / 'work' / f'{name}.py'
    result = run('test', config, checkpoint, '--work-dir', folders / 'tested')
    assert result.exit_code == 0, result.output
    (report,) = (folders / 'tested').glob('*/*.json')
    assert set(json.loads(report.read_text())) >= {'accuracy/top1'}
    out = folders / 'out'
    image = folders / 'mine' / 'val' / 'red' / '0.png'
    result = run('predict', 'cls', config, checkpoint, image, '--out', out, '--top-k', 2)
    assert result.exit_code == 0, result.output
    records = json.loads((out / 'predictions.json').read_text())
    assert {record['category'] for record in records} < set(CLASSES)


@pytest.mark.parametrize(
    ('batch', 'option', 'message'),
    [
        (16, 'log_level=ERROR', '9 samples are fewer than a batch, and drop_last leaves nothing'),
        (1, 'log_level=ERROR', 'need two samples'),
    ],
)
def test_messages_name_what_does_not_fit(batch, option, message, folders):
    given = ['--cfg-options', *options_of(PLAIN, batch), option]
    result = run('train', PLAIN, '--work-dir', folders / 'work', *given)
    assert result.exit_code == 1
    assert re.search(message, result.output), result.output
