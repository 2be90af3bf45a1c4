"""Recipes of image classification train, test and predict on folders of images, made tiny here."""

import functools
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from guides import words_of

from mmuniformer.cli import group
from mmuniformer.compat import load_file
from mmuniformer.models import heads

pytest.importorskip('mmpretrain', reason='needs mmpretrain: make install')
pytestmark = [pytest.mark.integration, pytest.mark.frameworks]

CLASSES = ('blue', 'green', 'red')
SIDE = 64
PLAIN = 'uniformer-small_8xb128-300e_in1k'
LIGHT = 'uniformer-light-xxs_8xb512-600e_in1k-128px'
TOKENS = 'uniformer-small-tl_8xb128-310e_in1k'
FINE_TUNED = 'uniformer-small-tl_8xb64-60e_in1k-384px'


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Three images a class, in folders named as the classes, and label maps; the current folder."""
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for index, name in enumerate(CLASSES):
            (tmp_path / 'mine' / split / name).mkdir(parents=True)
            for number in range(3):
                image = random.integers(0, 60, (80, 96, 3), np.uint8)
                image[..., index] += 190
                cv2.imwrite(str(tmp_path / 'mine' / split / name / f'{number}.png'), image)
                if split == 'train':
                    write_label_map(tmp_path / 'mine' / 'maps' / name / f'{number}.pt', index)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@functools.cache
def documented(heading):
    """The options of the command below a heading of docs/own-data.md, as bash reads it."""
    page = (Path(__file__).parents[2] / 'docs' / 'own-data.md').read_text()
    page = page.replace('/data/mine', 'mine').replace('(cat,dog)', '(blue,green,red)')
    words = words_of(page.replace('num_classes=2', 'num_classes=3'), heading)
    return words[words.index('--cfg-options') + 1 :]


def heading_of(name):
    """Where the command for a recipe is."""
    return 'Token labels' if name in (TOKENS, FINE_TUNED) else 'Image folders'


def options_of(name, batch=2):
    """Those options, and what makes a recipe tiny."""
    return [
        *(option for option in documented(heading_of(name))
          if name != LIGHT or 'loss.num_classes' not in option),
        *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test') for option in (
            'num_workers=0', 'persistent_workers=False', f'batch_size={batch}',
        )),
        *('model.backbone.arch=nano', 'model.head.in_channels=128'),
        f'train_dataloader.dataset.pipeline.{1 if name in (PLAIN, LIGHT) else 4}.scale={SIDE}',
        *('optim_wrapper.type=OptimWrapper', 'log_level=WARNING', 'train_cfg.max_epochs=1'),
        *('default_hooks.checkpoint.interval=1', 'randomness.seed=0'),
    ]  # fmt: skip


def write_label_map(path, label):
    """A map that gives all cells a label, and a little of the two others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = torch.tensor([label, (label + 1) % 3, (label + 2) % 3])
    logits = torch.tensor([8.0, 1.0, 0.0])
    cells = torch.stack([logits, classes])[..., None, None].expand(2, 3, 18, 18)
    torch.save(cells.half().contiguous(), path)


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


@pytest.mark.slow
@pytest.mark.parametrize('name', [PLAIN, LIGHT, TOKENS])
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


@pytest.mark.slow
def test_fine_tuning_starts_from_the_smaller_images(folders):
    train(TOKENS, folders)
    start = folders / 'start.pth'
    (folders / 'work' / 'epoch_1.pth').rename(start)
    rate = 'optim_wrapper.optimizer.lr=0.0'
    found = train(FINE_TUNED, folders, f'load_from={start}', rate)
    assert 'ema_state_dict' not in found
    for key in ('backbone.blocks3.0.mlp.fc1.weight', 'head.fc.weight', 'head.aux_fc.bias'):
        torch.testing.assert_close(found['state_dict'][key], load_file(start)['state_dict'][key])


def test_fine_tuning_names_the_missing_start(folders):
    given = ['--cfg-options', *options_of(FINE_TUNED)]
    result = run('train', FINE_TUNED, '--work-dir', folders / 'work', *given)
    assert result.exit_code == 1
    assert 'checkpoints/uniformer_small_tl_224.pth' in result.output


@pytest.mark.slow
@pytest.mark.parametrize('maps', [True, False])
def test_single_images_train_on_token_labels(maps, folders, monkeypatch):
    seen = []
    losses = heads.token_label_losses
    monkeypatch.setattr(
        heads, 'token_label_losses', lambda *given: seen.append(given[2]) or losses(*given)
    )
    options = [] if maps else ['train_dataloader.dataset.pipeline.2.label_root=none']
    given = ['--cfg-options', *options_of(TOKENS, 1), *options]
    result = run('train', TOKENS, '--work-dir', folders / 'work', *given)
    assert result.exit_code == 0, result.output
    assert len(seen) == 9
    assert {tuple(target.shape) for target in seen} == {(1, 3, 2 + 4) if maps else (1, 3)}
    # The maps and the labels agree.
    assert not maps or all(len(set(target[0].argmax(0).tolist())) == 1 for target in seen)


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


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('5.num_classes=2', r'mine/maps/\w+/\d.pt names the class 2, .*num_classes=2'),
        ('2.grid=14', r'\d.pt holds a tensor \(2, 3, 18, 18\).*set grid of LoadLabelMap'),
        ('2.label_root=absent', r'9 of 9 images .* first is absent/blue/0.pt: set label_root'),
        ('4.scale=(64,96)', 'samples have 4 token labels of 3 classes.*square crops'),
    ],
)
def test_messages_name_what_is_wrong_with_maps(option, message, folders):
    given = ['--cfg-options', *options_of(TOKENS), f'train_dataloader.dataset.pipeline.{option}']
    result = run('train', TOKENS, '--work-dir', folders / 'work', *given)
    assert result.exit_code == 1
    assert re.search(message, result.output), result.output


def test_one_missing_map_stops_a_run_before_it_starts(folders):
    (folders / 'mine' / 'maps' / 'red' / '1.pt').unlink()
    given = ['--cfg-options', *options_of(TOKENS)]
    result = run('train', TOKENS, '--work-dir', folders / 'work', *given)
    assert result.exit_code == 1
    assert re.search(r'1 of 9 images have no label map, .*mine/maps/red/1.pt', result.output)
    assert not (folders / 'work' / 'epoch_1.pth').exists()
