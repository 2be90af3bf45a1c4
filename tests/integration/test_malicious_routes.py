"""Every way to give a checkpoint refuses a malicious one: forms x routes."""

import importlib.metadata
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import malicious
import pytest
import torch
from click.testing import CliRunner
from mmengine.runner import Runner

from mmuniformer import UniFormer
from mmuniformer.apis.config import find_config, load_config, scope_of
from mmuniformer.apis.inference import Predictor
from mmuniformer.apis.models import build_model, get_model
from mmuniformer.cli import group
from mmuniformer.compat import CAN_EXPORT
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.load import load_pretrained

pytestmark = pytest.mark.integration
DET, SEG, POSE = (
    'mask-rcnn_uniformer-nano_fpn_toy',
    'upernet_uniformer-nano_toy-128x128',
    'td-hm_uniformer-nano_toy-128x96',
)
INIT = 'model.backbone.init_cfg'
IMAGE = 'image.jpg'
REFUSED = '(?i)weights.?only|WeightsUnpickler|tar archive|TorchScript|would have to be run'
FORMS = tuple(malicious.WRITERS) if os.environ.get('ALL_FORMS') else ('os.system',)
"""All take many minutes; the loaders below the routes are tested with all in any case."""
each_form = pytest.mark.parametrize('form', FORMS)


@pytest.fixture(scope='module')
def workplace(toy_root, tmp_path_factory):
    """A folder with the toy data where the configs expect it, an image and the files."""
    folder = tmp_path_factory.mktemp('routes')
    (folder / 'data').mkdir()
    (folder / 'data' / 'toy').symlink_to(toy_root)
    (folder / IMAGE).symlink_to(next((toy_root / 'coco' / 'val2017').glob('*.jpg')))
    for form in FORMS:
        malicious.WRITERS[form](folder / f'{name_of(form)}.ran', folder / f'{name_of(form)}.pth')
    torch.save(build_model(load_config(POSE)).state_dict(), folder / 'sound.pth')
    return folder


def name_of(form):
    return form.replace(' ', '_')


@pytest.fixture
def evil(form, workplace, monkeypatch):
    """A file in the working folder that creates another if it runs."""
    monkeypatch.chdir(workplace)
    yield f'{name_of(form)}.pth'
    assert not Path(f'{name_of(form)}.ran').exists()


COMMANDS = {
    'predict det': lambda file: ['predict', 'det', DET, file, IMAGE],
    'predict seg': lambda file: ['predict', 'seg', SEG, file, IMAGE],
    'predict pose': lambda file: ['predict', 'pose', POSE, file, IMAGE],
    'predict pose --det-checkpoint': lambda file: [
        *('predict', 'pose', POSE, 'sound.pth', IMAGE),
        *('--det-config', DET, '--det-checkpoint', file),
    ],
    'test': lambda file: ['test', SEG, file],
    'train load_from': lambda file: ['train', SEG, '--cfg-options', f'load_from={file}'],
    'train --resume': lambda file: ['train', SEG, '--resume', file],
    'train init_cfg': lambda file: [
        *('train', SEG, '--cfg-options', f'{INIT}.type=Pretrained', f'{INIT}.checkpoint={file}')
    ],
    'convert': lambda file: ['convert', file, 'new.pth'],
    'weights verify': lambda file: ['weights', 'verify', file],
    'export': lambda file: ['export', SEG, file],
    'explain': lambda file: ['explain', SEG, file, IMAGE],
    'benchmark': lambda file: ['benchmark', 'seg', SEG, file],
}


@each_form
@pytest.mark.parametrize('route', COMMANDS)
def test_command_names_the_file_and_the_reason(route, evil):
    if route == 'export' and not CAN_EXPORT:
        pytest.skip('this torch is too old to export, which is said first')
    done = CliRunner().invoke(group, COMMANDS[route](evil))
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    assert evil in done.output
    assert 'would have to be run' in done.output or 'no PyTorch checkpoint' in done.output


def init(file, **options):
    """A backbone of ours with an ``init_cfg``."""
    model = UniFormer('nano', init_cfg=dict(type='Pretrained', checkpoint=file, **options))
    model.init_weights()


def init_list(file):
    others = dict(type='Constant', layer='LayerNorm', val=1)
    UniFormer('nano', init_cfg=[others, dict(type='Pretrained', checkpoint=file)]).init_weights()


PYTHON = {
    'init_cfg': init,
    'init_cfg, prefix': lambda file: init(file, prefix='backbone'),
    'init_cfg, list': init_list,
    'load_pretrained': lambda file: load_pretrained(UniFormer('nano'), file),
    'build_model': lambda file: build_model(load_config(SEG), file),
    'get_model': lambda file: get_model(DET, file),
    'get_model, backbone': lambda file: get_model('uniformer_nano', file),
    'Predictor': lambda file: Predictor(POSE, file),
}


@each_form
@pytest.mark.parametrize('route', PYTHON)
def test_call_names_the_file_and_the_reason(route, evil):
    with pytest.raises(CheckpointError) as caught:
        PYTHON[route](evil)
    said = str(caught.value)
    assert evil in said
    assert 'would have to be run' in said or 'no PyTorch checkpoint' in said


def run(step, file, **options):
    """Run mmengine's own runner with a config of ours, as the scripts of MMPose do."""
    cfg = load_config(SEG, {'load_from': file, 'work_dir': 'run', **options})
    cfg.experiment_name = f'{step}{time.monotonic()}'
    with scope_of(cfg):
        getattr(Runner.from_cfg(cfg), step)()


def foreign_init(file):
    from mmseg.models import ResNet

    ResNet(18, init_cfg=dict(type='Pretrained', checkpoint=file)).init_weights()


def call(module, name, *arguments, **options):
    return getattr(importlib.import_module(module), name)(*arguments, **options, device='cpu')


FRAMEWORKS = {
    'DetInferencer': lambda file: call('mmdet.apis', 'DetInferencer', path_of(DET), file),
    'init_detector': lambda file: call('mmdet.apis', 'init_detector', path_of(DET), file),
    'MMSegInferencer': lambda file: call('mmseg.apis', 'MMSegInferencer', path_of(SEG), file),
    'mmseg init_model': lambda file: call('mmseg.apis', 'init_model', path_of(SEG), file),
    'MMPoseInferencer': lambda file: call('mmpose.apis', 'MMPoseInferencer', path_of(POSE), file),
    'MMPoseInferencer, detector': lambda file: call(
        *('mmpose.apis', 'MMPoseInferencer', path_of(POSE)),
        **dict(det_model=path_of(DET), det_weights=file, det_cat_ids=[0]),
    ),
    'mmpose init_model': lambda file: call('mmpose.apis', 'init_model', path_of(POSE), file),
    'Runner.test': lambda file: run('test', file),
    'Runner.train': lambda file: run('train', file),
    'Runner.train, resume': lambda file: run('train', file, resume=True),
    'init_cfg of another backbone': foreign_init,
}


def path_of(config):
    return str(find_config(config))


@each_form
@pytest.mark.parametrize('route', FRAMEWORKS)
def test_framework_refuses(route, evil):
    with pytest.raises(Exception, match=REFUSED):
        FRAMEWORKS[route](evil)


SCRIPTS = {
    'tools/test.py': ['{tools}/test.py', SEG, '{file}'],
    'mim test mmpose': ['-m', 'mim', 'test', 'mmpose', '{pose}', '--checkpoint', '{file}'],
    'mim train mmsegmentation': [
        *('-m', 'mim', 'train', 'mmsegmentation', '{seg}', '--gpus', '0'),
        *('--cfg-options', 'load_from={file}'),
    ],
}


@pytest.mark.parametrize('form', FORMS[:1])
@pytest.mark.parametrize('route', SCRIPTS)
def test_script_refuses(route, evil, repository, workplace):
    if 'mim' in route and not has_mim():
        pytest.skip("this stack's mim does not know upstream's names")
    places = {'tools': repository / 'tools', 'file': evil, 'pose': path_of(POSE)}
    places['seg'] = path_of(SEG)
    command = [argument.format(**places) for argument in SCRIPTS[route]]
    environment = {**os.environ, 'OMP_NUM_THREADS': '2', 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, *command], cwd=workplace, env=environment, capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(REFUSED, said), said[-2000:]


def has_mim():
    try:
        importlib.metadata.distribution('openmim')
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
