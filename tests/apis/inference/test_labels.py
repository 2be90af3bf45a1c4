"""``predict cls|video`` and ``Predictor``: what the frameworks give."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.dataset import Compose, pseudo_collate
from videos import write_video

from mmuniformer import Predictor
from mmuniformer.apis.config import load_config, scope_of
from mmuniformer.apis.models import build_model
from mmuniformer.cli import group
from mmuniformer.errors import InputError

CLS = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmuniformer'])
backbone = dict(
    type='mmuniformer.UniFormer', arch='nano', out_norm='BN', out_indices=(3,),
    init_cfg=dict(type='Normal', layer='Conv2d', std=0.05),
)
model = dict(
    type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
    data_preprocessor=dict(mean=[127.0] * 3, std=[64.0] * 3, to_rgb=True, num_classes=3),
)
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=64), dict(type='PackInputs'),
]
test_dataloader = dict(dataset=dict(
    type='CustomDataset', data_root='absent', pipeline=pipeline,
    metainfo=dict(classes=('left', 'middle', 'right')),
))
"""
VIDEO = """
default_scope = 'mmaction'
custom_imports = dict(imports=['mmuniformer'])
model = dict(
    type='Recognizer3D', backbone=dict(type='mmuniformer.UniFormer3D', arch='nano'),
    cls_head=dict(type='I3DHead', num_classes=3, in_channels=128, average_clips='score'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[127.0] * 3, std=[64.0] * 3, format_shape='NCTHW'
    ),
)
pipeline = [
    dict(type='OpenCVInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=2, num_clips=2, test_mode=True),
    dict(type='OpenCVDecode'), dict(type='Resize', scale=(-1, 64)),
    dict(type='CenterCrop', crop_size=64), dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
test_dataloader = dict(dataset=dict(type='VideoDataset', ann_file='absent', pipeline=pipeline))
"""
FRAMES = VIDEO.replace("dict(type='OpenCVInit'),", '').replace('OpenCVDecode', 'RawFrameDecode')
CLASSES = {'cls': ['left', 'middle', 'right'], 'video': ['0', '1', '2']}
pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Configs and random weights, by task."""
    folder = tmp_path_factory.mktemp('models')
    made = {}
    for task, text in (('cls', CLS), ('video', VIDEO), ('frames', FRAMES)):
        config, weights = folder / f'{task}.py', folder / f'{task}.pth'
        config.write_text(text)
        torch.manual_seed(1)
        model = build_model(load_config(config))
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.1)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, weights)
        made[task] = [str(config), str(weights)]
    return made


@pytest.fixture
def predict(models, tmp_path):
    """Run the command; return its result and the folder that it writes to."""

    def run(task, *arguments):
        out = tmp_path / 'out'
        words = ['predict', task, *models[task], *map(str, arguments), '--out', str(out)]
        result = CliRunner().invoke(group, [*words, '--device', 'cpu'])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result, out

    return run


@pytest.fixture
def images(tmp_path):
    random, paths = np.random.default_rng(0), []
    for index in range(3):
        image = cv2.resize(random.integers(0, 256, (3, 4, 3)).astype(np.uint8), (130, 90 + index))
        paths.append(tmp_path / f'{index}.png')
        cv2.imwrite(str(paths[-1]), image)
    return paths


@pytest.fixture
def videos(tmp_path):
    paths = [tmp_path / f'{name}.avi' for name in 'ab']
    for step, path in enumerate(paths, 1):
        write_video(path, 9, step=12 * step)
    return paths


def framework_scores(config, weights, samples):
    """Scores by the framework's pipeline and model alone."""
    cfg = load_config(config)
    model = build_model(cfg, weights)
    with scope_of(cfg), torch.no_grad():
        pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
        batches = [pseudo_collate([pipeline(dict(sample))]) for sample in samples]
        return torch.stack([model.test_step(batch)[0].pred_score for batch in batches]).numpy()


def test_videos_with_corrupt_frames_are_classified_and_reported(predict, videos):
    write_video(videos[0], 60, step=4, corrupt=[50, 59])
    result, out = predict('video', *videos)
    assert result.exit_code == 3
    assert f'skipped: {videos[0]}: 2 of 60 frames are corrupt, from frame 50 on' in result.output
    names = [i['file_name'] for i in json.loads((out / 'images.json').read_text())['images']]
    assert names == [str(path) for path in videos]
    assert len(json.loads((out / 'predictions.json').read_text())) == 6
    for path, count in zip(videos, (59, 9), strict=True):
        drawn = cv2.VideoCapture(str(out / 'vis' / f'{path.stem}.mp4'))
        assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == count


def assert_scored(records, scores, task, top):
    """Compare records of the command, ``top`` for each input, with scores ``(N, classes)``."""
    assert len(records) == top * len(scores)
    for index, row in enumerate(scores):
        best = records[top * index : top * (index + 1)]
        order = np.argsort(-row)[:top]
        assert [each['category_id'] for each in best] == order.tolist()
        assert [each['category'] for each in best] == [CLASSES[task][i] for i in order]
        np.testing.assert_allclose([each['score'] for each in best], row[order], atol=2e-5)


def test_images_get_the_labels_that_mmpretrain_gives_them(predict, models, images):
    scores = framework_scores(*models['cls'], [{'img_path': str(path)} for path in images])
    assert np.ptp(scores, axis=0).max() > 1e-3  # they depend on the image
    result, out = predict('cls', *images, '--top-k', 2, '--batch-size', 2)
    assert result.exit_code == 0
    assert_scored(json.loads((out / 'predictions.json').read_text()), scores, 'cls', 2)
    with (out / 'predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['rank'] for row in rows] == ['1', '2'] * 3
    assert rows[2]['input'] == str(images[1])
    assert rows[2]['name'] == CLASSES['cls'][scores[1].argmax()]
    assert CLASSES['cls'][scores[1].argmax()] in result.output
    drawn = cv2.imread(str(out / 'vis' / '1.png'))
    assert drawn.shape == cv2.imread(str(images[1])).shape
    assert (drawn != cv2.imread(str(images[1]))).any()


def test_videos_get_the_labels_that_mmaction2_gives_them(predict, models, videos):
    samples = [
        {'filename': str(p), 'label': 0, 'start_index': 0, 'modality': 'RGB'} for p in videos
    ]
    logits = framework_scores(*models['video'], samples)
    scores = torch.tensor(logits).softmax(-1).numpy()
    assert np.ptp(scores, axis=0).max() > 1e-4
    result, out = predict('video', *videos)
    assert result.exit_code == 0
    assert_scored(json.loads((out / 'predictions.json').read_text()), scores, 'video', 3)
    drawn = cv2.VideoCapture(str(out / 'vis' / 'b.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 9


def test_a_folder_of_frames_is_a_clip(models, videos, tmp_path):
    folder = tmp_path / 'clip'
    folder.mkdir()
    capture = cv2.VideoCapture(str(videos[1]))
    for number in range(3, 12):
        cv2.imwrite(str(folder / f'img_{number:05}.jpg'), capture.read()[1])
    sample = {'frame_dir': str(folder), 'total_frames': 9, 'filename_tmpl': 'img_{:05}.jpg'}
    sample |= {'label': 0, 'start_index': 3, 'modality': 'RGB', 'offset': 0}
    scores = torch.tensor(framework_scores(*models['frames'], [sample])).softmax(-1).numpy()
    (found,) = Predictor(*models['frames'], device='cpu', top_k=3)(folder)
    np.testing.assert_allclose(found['scores'], np.sort(scores[0])[::-1], atol=1e-6)
    assert found['labels'].tolist() == np.argsort(-scores[0]).tolist()


def test_what_is_no_video_is_skipped_by_name(predict, videos, images, tmp_path):
    broken = tmp_path / 'broken.avi'
    broken.write_bytes(videos[0].read_bytes()[:100])
    empty = tmp_path / 'empty'
    empty.mkdir()
    result, out = predict('video', videos[0], broken, images[0], empty)
    assert result.exit_code == 3
    assert 'broken.avi: not a video that can be decoded' in result.output
    assert '0.png: an image, not a video' in result.output
    assert 'the folder holds no' in result.output
    assert len(json.loads((out / 'predictions.json').read_text())) == 3


def test_predictor_takes_paths_of_videos_only(models, videos):
    predictor = Predictor(*models['video'], device='cpu', top_k=1)
    assert [set(found) for found in predictor([*videos])] == [{'labels', 'scores'}] * 2
    (sample,) = predictor(videos[0], return_datasamples=True)
    assert sample.pred_score.shape == (3,)
    with pytest.raises(InputError, match='ndarray is no video'):
        predictor(np.zeros((4, 64, 64, 3), np.uint8))


def test_predictor_classifies_arrays(models, images):
    predictor = Predictor(*models['cls'], device='cpu', top_k=2)
    arrays = [cv2.imread(str(path)) for path in images]
    for ours, theirs in zip(predictor(arrays), predictor(images), strict=True):
        np.testing.assert_array_equal(ours['labels'], theirs['labels'])
        np.testing.assert_array_equal(ours['scores'], theirs['scores'])
