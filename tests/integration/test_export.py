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
from mmuniformer.deployment.files import FORMATS, run_onnx
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
    assert result.output.count('passes') == (1 if '--static' in options else 3), result.output
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


TOKEN_LABELS = {
    'model.backbone.mix_token': True, 'model.neck': None, 'model.head': {
        '_delete_': True, 'type': 'mmuniformer.TokenLabelHead', 'num_classes': 3,
        'in_channels': 128,
    },
}  # fmt: skip
LIGHT_HEAD = {'_delete_': True, 'type': 'mmuniformer.LightClsHead', 'in_channels': 128}
LIGHT = {'arch': 'nano', 'out_cls_token': True, '_delete_': True, 'type': 'mmuniformer.{}'}
CLASSIFIERS = {
    'plain': {},
    'token labels': TOKEN_LABELS,
    'light': {
        'model.neck': None, 'model.head': LIGHT_HEAD | {'num_classes': 3},
        'model.backbone': LIGHT | {
            'type': 'mmuniformer.UniFormerLight', 'out_norm': 'BN', 'out_indices': (3,),
        },
    },
}  # fmt: skip
RECOGNIZERS = {
    'plain': {},
    'light': {
        'model.backbone': LIGHT | {'type': 'mmuniformer.UniFormerLight3D'},
        'model.cls_head': LIGHT_HEAD | {'num_classes': 6},
    },
}


def exported_logits(name, settings, folder, form, *options):
    """Export a config with settings; return its model and the function that runs the file."""
    load_config(name, settings).dump(folder / 'net.py')
    config, checkpoint = str(folder / 'net.py'), folder / 'weights.pth'
    write_checkpoint(config, checkpoint)
    file = folder / f'net{FORMATS[form].suffix}'
    export(config, checkpoint, file, '--format', form, *options)
    with scope_of(load_config(config)):
        return build_model(load_config(config), checkpoint), FORMATS[form].run(file)


@pytest.mark.parametrize(
    ('kind', 'form'),
    [('plain', 'onnx'), ('token labels', 'torch-export'), ('light', 'onnx')],
)
@torch.no_grad()
def test_logits_of_images_are_the_classifiers(tmp_path, kind, form):
    pytest.importorskip('mmpretrain')
    model, run = exported_logits('uniformer-nano_toy-64x64', CLASSIFIERS[kind], tmp_path, form)
    images = torch.randn(2, 3, 96, 75, generator=torch.Generator().manual_seed(1))
    scores = torch.stack([each.pred_score for each in model(images, mode='predict')])
    (logits,) = run(images)
    torch.testing.assert_close(logits.log_softmax(1), scores.log(), rtol=1e-4, atol=1e-4)
    assert (logits[0] - logits[1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ('kind', 'form', 'options'),
    [
        ('plain', 'onnx', ()),
        ('plain', 'torch-export', ()),
        # Of all sizes it takes minutes.
        ('light', 'onnx', ('--static', 2, '--frames', 5, '--shape', 64, 96)),
    ],
)
@torch.no_grad()
def test_logits_of_clips_averaged_over_views_are_the_recognizers(tmp_path, kind, form, options):
    structures = pytest.importorskip('mmaction.structures')
    name = 'uniformer3d-nano_toy-u4-64x64'
    model, run = exported_logits(name, RECOGNIZERS[kind], tmp_path, form, *options)
    views = torch.randn(1, 2, 3, 5, 64, 96, generator=torch.Generator().manual_seed(1))
    sample = structures.ActionDataSample().set_gt_label(0)
    (found,) = model(views, [sample], mode='predict')
    (logits,) = run(views[0])
    wanted = logits.mean(0) if kind == 'plain' else logits.mean(0).softmax(0)
    torch.testing.assert_close(found.pred_score.flatten(), wanted, rtol=0, atol=1e-4)
    assert (logits[0] - logits[1]).abs().max() > 1e-2


def test_file_of_a_recognizer_tells_what_it_takes(tmp_path):
    pytest.importorskip('mmaction')
    name, file = 'uniformer3d-nano_toy-u4-64x64', tmp_path / 'net.onnx'
    export(
        name, write_checkpoint(name, tmp_path / 'weights.pth'), file, '--frames', 6, '--static', 1
    )
    session = pytest.importorskip('onnxruntime').InferenceSession(file)
    metadata = session.get_modelmeta().custom_metadata_map
    assert (metadata['frames'], metadata['size'], metadata['channels']) == (
        '6',
        '[64, 64]',
        '"RGB"',
    )
    assert metadata['names'] == '["left", "right", "up", "down", "grow", "shrink"]'
    assert [out.name for out in session.get_outputs()] == ['logits']


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
