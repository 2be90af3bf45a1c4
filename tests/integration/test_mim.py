"""mim finds the installed package: search, train and test by a config's name alone."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmuniformer.apis.config import find_config
from mmuniformer.datasets.toy import labeled
from mmuniformer.datasets.toy.write import write_toy_data
from mmuniformer.models.weights.catalog import weights_of

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


def mim(folder, *arguments, status=0):
    command = [Path(sys.executable).with_name('mim'), *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'COLUMNS': '200'}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = done.stdout.decode(errors='replace')
    assert done.returncode == status, output[-3000:]
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
@pytest.mark.parametrize(
    ('collection', 'config'),
    [
        ('UniFormer', 'mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco'),
        ('UniFormer-Light', 'fpn_uniformer-light-xxs_8xb4-80k_ade20k-512x512'),
    ],
)
def test_search_finds_models_by_their_collection(workplace, collection, config):
    found = mim(workplace, 'search', 'mmuniformer', '--model', collection)
    assert f'config id: {config}\n' in found
    assert ('light' in found) == (collection == 'UniFormer-Light')


@pytest.mark.parametrize(
    'name',
    [
        'td-hm_uniformer-small_8xb128-210e_coco-256x192',
        'mask-rcnn_uniformer-small-h14_fpn_amp-ms-crop-3x_coco',
        'upernet_uniformer-small-global_8xb2-160k_ade20k-512x512',
        'uniformer-base_8xb128-300e_in1k',
        'uniformer-small_imagenet1k-pre_8xb4-16x4x1-110e_kinetics400-rgb',
    ],
)
def test_download_gives_weights_and_config_of_a_published_model(tmp_path, name):
    """The weights lie there already, so that nothing is fetched."""
    download = pytest.importorskip('mim.commands.download').download
    weights = weights_of(name).name
    (tmp_path / weights).touch()
    assert download('mmuniformer', [name], str(tmp_path)) == [weights]
    dumped = Config.fromfile(tmp_path / f'{name}.py')
    assert dumped.model.backbone == Config.fromfile(find_config(name)).model.backbone


def test_download_of_a_model_without_an_address_ends_as_the_readme_says(tmp_path, repository):
    download = pytest.importorskip('mim.commands.download').download
    with pytest.raises(AttributeError) as caught:
        download('mmuniformer', ['mask-rcnn_uniformer-small-h14_fpn_amp-1x_coco'], str(tmp_path))
    assert str(caught.value) in ' '.join((repository / 'README.md').read_text().split())


@pytest.mark.slow
def test_train_by_name_runs_the_shipped_script(trained, workplace):
    assert os.path.join('.mim', 'tools', 'train.py') in trained
    assert 'Training finished successfully' in trained
    assert (workplace / 'run' / 'epoch_1.pth').is_file()


@pytest.mark.slow
def test_checkpoint_of_training_is_tested(trained, workplace):
    command = ['test', 'mmuniformer', CONFIG, '--checkpoint', 'run/epoch_1.pth']
    command += ['--work-dir', 'run']
    assert 'coco/AP' in mim(workplace, *command)


@pytest.mark.slow
def test_training_resumes_from_its_checkpoint(trained, workplace):
    """The checkpoint holds the training history, which torch reloads with its check on."""
    assert 'resumed epoch: 1' in train(workplace, 2, '--resume')
    assert (workplace / 'run' / 'epoch_2.pth').is_file()


@pytest.mark.slow
def test_reason_stands_above_the_traceback_of_mim(workplace):
    command = ['test', 'mmuniformer', CONFIG, '--checkpoint', 'gone.pth', '--work-dir', 'missing']
    said = mim(workplace, *command, status=1).splitlines()
    at = said.index('Error: checkpoint gone.pth does not exist: correct the path')
    assert said[at + 1].startswith('Traceback')
    assert 'CalledProcessError' in said[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('framework', 'config', 'score'),
    [
        ('mmpretrain', 'uniformer-nano_toy-64x64', 'accuracy/top1: '),
        ('mmaction2', 'uniformer3d-nano_toy-u4-64x64', 'acc/top1: '),
    ],
)
def test_commands_of_classification_frameworks(tmp_path, monkeypatch, framework, config, score):
    pytest.importorskip(framework.rstrip('2'))
    monkeypatch.setattr(labeled, 'CLIPS_PER_MOTION', {'train': 2, 'val': 1})
    data = write_toy_data(tmp_path / 'data' / 'toy', train_images=4, val_images=3)
    labeled.write_toy_crops(data)
    labeled.write_toy_clips(data)
    path = str(find_config(config))
    options = ['--gpus', '0', '--work-dir', 'run']
    shorter = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    shorter += ['default_hooks.checkpoint.interval=1', 'train_dataloader.batch_size=4']
    assert score in mim(tmp_path, 'train', framework, path, *options, *shorter)
    checkpoint = ['--checkpoint', 'run/epoch_1.pth']
    assert score in mim(tmp_path, 'test', framework, path, *checkpoint, *options)
