"""mim finds the installed package: search, train and test by a config's name alone."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = 'td-hm_uniformer-nano_toy-128x96.py'


def is_installed():
    """Tell whether there is a real install; a checkout on the path has no ``.mim``."""
    try:
        place = importlib.metadata.distribution('mmuniformer').locate_file('mmuniformer')
    except importlib.metadata.PackageNotFoundError:
        return False
    return (Path(place) / '.mim').is_dir()


pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not is_installed(), reason='mmuniformer is not installed: make install'),
]


@pytest.fixture(scope='module')
def workplace(toy_root, tmp_path_factory):
    """A folder with the toy data where the configs expect it."""
    folder = tmp_path_factory.mktemp('workplace')
    (folder / 'data').mkdir()
    (folder / 'data' / 'toy').symlink_to(toy_root)
    return folder


def mim(folder, *arguments):
    command = [Path(sys.executable).with_name('mim'), *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'COLUMNS': '200'}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = done.stdout.decode(errors='replace')
    assert done.returncode == 0, output[-3000:]
    return output


def train(folder, epochs, *options):
    """Train by the config's name alone."""
    command = ['train', 'mmuniformer', CONFIG, '--work-dir', 'run', *options, '--cfg-options']
    command += [f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=10']
    return mim(folder, *command, 'default_hooks.checkpoint.interval=1')


@pytest.fixture(scope='module')
def trained(workplace):
    """The output of one epoch; the checkpoint is ``run/epoch_1.pth``."""
    return train(workplace, 1)


@pytest.mark.slow
def test_search_finds_models_by_name(workplace):
    found = mim(workplace, 'search', 'mmuniformer', '--model', 'uniformer')
    assert 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco' in found
    assert 'config' in found


@pytest.mark.slow
def test_train_by_name_runs_the_shipped_script(trained, workplace):
    assert os.path.join('.mim', 'tools', 'train.py') in trained
    assert 'Training finished successfully' in trained
    assert (workplace / 'run' / 'epoch_1.pth').is_file()


@pytest.mark.slow
def test_checkpoint_of_training_is_tested(trained, workplace):
    command = ['test', 'mmuniformer', CONFIG, '--checkpoint', 'run/epoch_1.pth']
    command += ['--work-dir', 'run', '--out', 'found.pkl', '--show-dir', 'seen']
    assert 'coco/AP' in mim(workplace, *command)
    assert (workplace / 'found.pkl').stat().st_size > 0
    assert len(list((workplace / 'seen').iterdir())) >= 4


@pytest.mark.slow
def test_training_resumes_from_its_checkpoint(trained, workplace):
    """The checkpoint holds the training history, which torch reloads with its check on."""
    assert 'resumed epoch: 1' in train(workplace, 2, '--resume')
    assert (workplace / 'run' / 'epoch_2.pth').is_file()
