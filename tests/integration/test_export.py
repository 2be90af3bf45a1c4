"""`mmuniformer export` of whole models: checked, used without us, and quantized by the recipe."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from config_helpers import LOADERS
from new_style import SEGMENTOR
from PIL import Image

from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.apis.train import evaluate
from mmuniformer.cli.export import command
from mmuniformer.deployment.files import run_onnx
from mmuniformer.deployment.networks import segment

pytest.importorskip('onnxruntime')
pytestmark = [pytest.mark.slow, pytest.mark.integration]

SEGMENTORS = [f'{head}_uniformer-nano_toy-128x128' for head in ('fpn', 'upernet')]
DETECTOR = 'mask-rcnn_uniformer-nano_fpn_toy'
POSE = 'td-hm_uniformer-nano_toy-128x96'


def write_checkpoint(config, file):
    """Random weights whose outputs differ from place to place."""
    torch.manual_seed(0)
    model = build_model(load_config(config))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        elif name.endswith('bias'):
            torch.nn.init.normal_(parameter, 0, 0.2)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    return file


def export(config, checkpoint, file, *options):
    """Run the command, whose comparison passes at three sizes."""
    arguments = [config, checkpoint, '--out', file, *options]
    result = CliRunner(env={'COLUMNS': '200'}).invoke(command, list(map(str, arguments)))
    assert result.exception is None, result.output
    assert result.output.count('passes') == 3, result.output
    assert 'fails' not in result.output


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """Checkpoint and ONNX file of a config, exported once."""

    @functools.cache
    def make(config):
        folder = tmp_path_factory.mktemp('exported')
        checkpoint, file = write_checkpoint(config, folder / 'weights.pth'), folder / 'net.onnx'
        export(config, checkpoint, file)
        return checkpoint, file

    return make


def score(repository, tmp_path, monkeypatch, checkpoint, file, config):
    """Evaluate a file by the lines of docs/export.md."""
    page = (repository / 'docs' / 'export.md').read_text()
    (lines,) = (
        block for block in re.findall(r'```python\n(.*?)```', page, re.DOTALL) if 'RUNNERS' in block
    )
    lines = lines.replace('CONFIG-int8.onnx', str(file)).replace("'CONFIG'", 'CONFIG')
    monkeypatch.chdir(tmp_path)
    given = {'CONFIG': config}
    exec(lines.replace('weights.pth', str(checkpoint)), given)
    return given['metrics']


@pytest.mark.parametrize('config', SEGMENTORS)
def test_segmentor_in_8_bits_by_the_recipe_is_close_and_is_scored(
    toy_root, tmp_path, config, exported, run_python, repository, monkeypatch
):
    pytest.importorskip('mmseg')
    checkpoint, file = exported(config)
    small = tmp_path / 'net-int8.onnx'
    images = toy_root / 'coco' / 'train2017'
    done = run_python(repository / 'docs' / 'int8_example.py', file, images, small)
    assert done.returncode == 0, done.stderr
    assert small.stat().st_size < 0.35 * file.stat().st_size

    with scope_of(load_config(config)):
        model = build_model(load_config(config), checkpoint)
    image = torch.randn(2, 3, 96, 131, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (wanted,) = segment(model, image)
    whole, eight = ((run_onnx(each)(image)[0] - wanted).std() for each in (file, small))
    assert whole < 1e-4 * wanted.std()
    assert 1e-3 * wanted.std() < eight < 0.3 * wanted.std()

    cfg = load_config(config, {f'{loader}.data_root': f'{toy_root}/ade/' for loader in LOADERS})
    cfg.dump(tmp_path / 'own.py')
    given = repository, tmp_path, monkeypatch, checkpoint
    found = score(*given, file, str(tmp_path / 'own.py'))
    wanted = evaluate(str(tmp_path / 'own.py'), str(checkpoint), work_dir=str(tmp_path / 'run'))
    assert found['mIoU'] == pytest.approx(wanted['mIoU'], abs=0.1)


def test_pose_estimator_in_8_bits_by_the_recipe_is_scored_with_flips(
    toy_root, tmp_path, run_python, repository, monkeypatch
):
    pytest.importorskip('mmpose')
    checkpoint = write_checkpoint(POSE, tmp_path / 'weights.pth')
    coco, file, small = toy_root / 'coco', tmp_path / 'net.onnx', tmp_path / 'net-int8.onnx'
    export(POSE, checkpoint, file)
    done = run_python(repository / 'docs' / 'int8_example.py', file, coco / 'val2017', small)
    assert done.returncode == 0, done.stderr
    options = {
        'test_dataloader.dataset.data_root': f'{coco}/',
        'test_evaluator.ann_file': f'{coco}/annotations/person_keypoints_val2017.json',
        'model.test_cfg.flip_test': True,
    }
    load_config(POSE, options).dump(tmp_path / 'own.py')
    given = repository, tmp_path, monkeypatch, checkpoint
    found = score(*given, file, str(tmp_path / 'own.py'))
    wanted = evaluate(str(tmp_path / 'own.py'), str(checkpoint), work_dir=str(tmp_path / 'run'))
    assert found['coco/AR'] == pytest.approx(wanted['coco/AR'], abs=1e-3)


def test_config_whose_types_are_classes(tmp_path):
    pytest.importorskip('mmseg')
    config = tmp_path / 'new_style.py'
    config.write_text(SEGMENTOR)
    checkpoint = write_checkpoint(config, tmp_path / 'weights.pth')
    export(config, checkpoint, tmp_path / 'net.onnx')
    session = pytest.importorskip('onnxruntime').InferenceSession(tmp_path / 'net.onnx')
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata['size'] == '[96, 128]'
    assert metadata['names'] == '["background", "person", "box", "ball"]'


@pytest.mark.parametrize('config', [SEGMENTORS[0], POSE])
def test_whole_models_are_exported_by_torch(tmp_path, config):
    pytest.importorskip({SEGMENTORS[0]: 'mmseg', POSE: 'mmpose'}[config])
    checkpoint = write_checkpoint(config, tmp_path / 'weights.pth')
    export(config, checkpoint, tmp_path / 'net.pt2', '--format', 'torch-export')
    assert (tmp_path / 'net.pt2').is_file()


def test_mask_rcnn_is_exported_from_image_to_masks(toy_root, tmp_path):
    pytest.importorskip('mmdet')
    checkpoint = write_checkpoint(DETECTOR, tmp_path / 'weights.pth')
    file = tmp_path / 'net.onnx'
    arguments = [DETECTOR, checkpoint, '--out', file, '--cfg-options']
    arguments += [f'test_dataloader.dataset.data_root={toy_root}/coco/']
    result = CliRunner(env={'COLUMNS': '200'}).invoke(command, list(map(str, arguments)))
    assert result.exception is None, result.output
    assert 'passes' in result.output
    boxes, scores, labels, masks = run_onnx(file)(torch.randn(1, 3, 128, 128))
    assert (boxes.shape, masks.shape[1:]) == ((20, 4), (28, 28))
    assert scores.max() > 0.05
    assert set(labels.tolist()) <= {-1, 0, 1, 2}
    graph = pytest.importorskip('onnx').load(file)
    assert {entry.domain for entry in graph.opset_import} == {''}
    assert {'NonMaxSuppression', 'RoiAlign'} <= {node.op_type for node in graph.graph.node}


def test_example_labels_an_image_without_mmuniformer(
    toy_root, tmp_path, exported, run_python, repository
):
    pytest.importorskip('mmseg')
    checkpoint, file = exported(SEGMENTORS[0])
    photo = next((toy_root / 'coco' / 'val2017').glob('*.jpg'))
    labels = tmp_path / 'labels.png'
    done = run_python(repository / 'docs' / 'onnx_example.py', file, photo, labels)
    assert done.returncode == 0, done.stderr

    cfg = load_config(SEGMENTORS[0])
    with scope_of(cfg):
        model = build_model(cfg, checkpoint)
    image = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)[None].float()
    image = (image - model.data_preprocessor.mean) / model.data_preprocessor.std
    with torch.no_grad():
        wanted = segment(model, image)[0][0].argmax(0).numpy()
    found = np.array(Image.open(labels))
    assert found.shape == wanted.shape
    assert (found == wanted).mean() > 0.999
