"""``Predictor``: every kind of input and output, against the frameworks' own functions."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from nano_models import CONFIGS, randomize
from PIL import Image
from videos import write_video

import mmuniformer
from mmuniformer import Predictor
from mmuniformer.apis.config import load_config
from mmuniformer.errors import CheckpointError, InputError, UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def predictors():
    """Predictors whose random weights let outputs depend on the image."""
    made = {}
    for task, config in CONFIGS.items():
        torch.manual_seed(1)
        made[task] = Predictor(config, pretrained=False, device='cpu', score_thr=0.05)
        randomize(made[task].model)
    return made


@pytest.fixture(scope='module')
def paths(toy_root):
    return sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))[:3]


@pytest.fixture(scope='module')
def images(paths):
    return [cv2.imread(str(path)) for path in paths]


def framework_model(predictor):
    """The predictor's model, with the config that the frameworks' own functions want."""
    model = predictor.model
    model.dataset_meta = predictor.meta
    model.cfg = load_config(CONFIGS[predictor.task])
    model.cfg.test_pipeline = model.cfg.test_dataloader.dataset.pipeline
    return model


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            assert np.allclose(values, theirs[name], atol=1e-4), name


def test_detections_are_the_frameworks_own(predictors, images):
    from mmdet.apis import inference_detector

    found = predictors['det'](images)
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = inference_detector(framework_model(predictors['det']), images)
    wanted = [t.pred_instances[t.pred_instances.scores >= 0.05].numpy() for t in theirs]
    assert all(len(each['scores']) for each in found)
    assert_same(found, [dict(each.items()) for each in wanted])
    samples = predictors['det'](images, return_datasamples=True)
    for ours, each in zip(samples, theirs, strict=True):
        assert type(ours) is type(each)
        assert torch.allclose(ours.pred_instances.bboxes, each.pred_instances.bboxes, atol=1e-4)


def test_label_maps_are_the_frameworks_own(predictors, images):
    from mmseg.apis import inference_model

    (found,) = predictors['seg'](images[0])
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs = inference_model(framework_model(predictors['seg']), images[0])
    assert np.array_equal(found['label_map'], theirs.pred_sem_seg.data[0])
    assert len(np.unique(found['label_map'])) > 1
    (sample,) = predictors['seg'](images[0], return_datasamples=True)
    assert torch.equal(sample.pred_sem_seg.data, theirs.pred_sem_seg.data)


def test_poses_are_the_frameworks_own(predictors, images):
    from mmpose.apis import inference_topdown

    boxes = [[[4, 8, 60, 100], [30, 20, 90, 120]], np.empty((0, 4)), [[10, 10, 100, 100]]]
    found = predictors['pose'](images, boxes=boxes, batch_size=2)
    with DefaultScope.overwrite_default_scope('mmpose'):
        theirs = inference_topdown(framework_model(predictors['pose']), images[0], boxes[0])
    points = np.concatenate([each.pred_instances.keypoints for each in theirs])
    assert np.allclose(found[0]['keypoints'], points, atol=1e-3)
    assert [each['keypoints'].shape[0] for each in found] == [2, 0, 1]
    assert np.array_equal(found[0]['bboxes'], boxes[0])
    samples = predictors['pose'](images, boxes=boxes, return_datasamples=True)
    assert [len(each.pred_instances.keypoints) for each in samples] == [2, 0, 1]
    assert np.allclose(samples[0].pred_instances.keypoints, points, atol=1e-3)
    (whole,) = predictors['pose'](images[0])
    assert whole['bboxes'].tolist() == [[0, 0, *images[0].shape[1::-1]]]


def test_poses_in_what_a_detector_finds(predictors, images):
    detector = predictors['det']
    pose = Predictor(CONFIGS['pose'], False, 'cpu', detector=detector)
    found = pose(images)
    people = [each['bboxes'][each['labels'] == 0] for each in detector(images)]
    sides = [(box[:, 2:] - box[:, :2]).min(axis=1) >= 1 for box in people]
    assert sum(map(len, people)) > 0
    for each, boxes, wide in zip(found, people, sides, strict=True):
        assert np.allclose(each['bboxes'], boxes[wide])
    with pytest.raises(UserError, match='a pose predictor for a det one'):
        Predictor(CONFIGS['det'], False, detector=pose)


def test_kinds_of_inputs_give_the_same(predictors, paths, images, tmp_path):
    seg = predictors['seg']
    png = tmp_path / 'folder' / 'a.png'
    png.parent.mkdir()
    cv2.imwrite(str(png), images[0])
    wanted = seg(images[0])
    pil = Image.fromarray(images[0][..., ::-1])
    for kind in (png, str(png), png.parent, f'{png.parent}/*.png', pil, [images[0]], iter([pil])):
        assert_same(seg(kind), wanted)
    assert_same(seg(np.stack([images[0], images[0]])), wanted * 2)
    assert_same(seg([png, png, images[0]], batch_size=3), wanted * 3)
    gray = cv2.cvtColor(images[0], cv2.COLOR_BGR2GRAY)
    wanted = seg(np.repeat(gray[..., None], 3, axis=2))
    for kind in (gray, gray[..., None], Image.fromarray(gray)):
        assert_same(seg(kind), wanted)


def test_results_come_one_by_one(predictors, images, tmp_path):
    taken = []

    def camera():
        for image in images:
            taken.append(image)
            yield image

    stream = predictors['seg'].stream(camera())
    assert next(stream)['label_map'].shape == images[0].shape[:2]
    assert len(taken) == 1
    assert len(list(stream)) == 2
    write_video(tmp_path / 'clip.avi', frames=3, size=(96, 64))
    assert len(list(predictors['seg'].stream(tmp_path / 'clip.avi', batch_size=2))) == 3


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        (np.zeros((3, 64, 64), np.uint8), r'uint8, \(3, 64, 64\): images are BGR'),
        (np.zeros((64, 64, 3), np.float32), 'array of float32'),
        (np.zeros((64, 64, 4), np.uint8), 'images are BGR'),
        (torch.zeros(3, 64, 64, dtype=torch.uint8), 'a Tensor is no image'),
        ('no/such.jpg', 'no such file'),
        (Image.new('I', (64, 64)), 'PIL image of mode I: scale it'),
        ([None], 'a NoneType is no image'),
        (np.zeros((400, 1, 3), np.uint8), 'image 0: .* too long for its width'),
        (np.zeros((0, 5, 3), np.uint8), 'image 0: an array: .* has no pixels'),
        (None, 'image 0: a NoneType is no image'),
    ],
)
def test_inputs_that_cannot_be_used_are_named(predictors, given, words):
    with pytest.raises(InputError, match=words):
        predictors['seg'](given)


@pytest.mark.parametrize('batch_size', [1, 3])
def test_one_input_that_cannot_be_used_does_not_lose_the_others(
    predictors, images, paths, tmp_path, batch_size
):
    cut = tmp_path / 'cut.png'
    Image.fromarray(images[0]).save(cut)
    cut.write_bytes(cut.read_bytes()[:2000])
    clip = write_video(tmp_path / 'clip.avi', 3, corrupt=[1])
    given = [images[0], cut, Image.open(cut), np.zeros((400, 1, 3), np.uint8), paths[1], clip,
             None, images[2]]  # fmt: skip
    found = predictors['seg'](given, batch_size, return_errors=True)
    good = predictors['seg']([images[0], paths[1]]) + [None, None] + predictors['seg'](images[2])
    places = [0, 4, 5, 6, 9]
    for place, wanted in zip(places, good, strict=True):
        if wanted:
            assert np.array_equal(found[place]['label_map'], wanted['label_map'])
    errors = [str(found[i]) for i in range(10) if isinstance(found[i], InputError)]
    words = ['cut.png: cannot be read', 'image 2: a PIL image that cannot', 'image 3: an image of',
             '1 of 3 frames are corrupt', 'image 7: a NoneType']  # fmt: skip
    assert len(errors) == len(words)
    for error, word in zip(errors, words, strict=True):
        assert word in error
    with pytest.raises(InputError, match='cut.png'):
        predictors['seg'](given, batch_size)


@pytest.mark.parametrize('broken', [None, 'gone.jpg', __file__])
def test_boxes_stay_with_their_images_beside_a_broken_one(predictors, images, broken):
    boxes = [[[4, 8, 60, 100]], [[0, 0, 9, 9]], [[30, 20, 90, 120]]]
    given = [images[0], broken, images[2]]
    found = predictors['pose'](given, boxes=boxes, return_errors=True)
    assert isinstance(found[1], InputError)
    assert [found[i]['bboxes'].tolist() for i in (0, 2)] == [boxes[0], boxes[2]]


def test_arrays_and_files_up_to_a_number_of_pixels(images, paths):
    small = Predictor(CONFIGS['seg'], False, 'cpu', max_pixels=images[0][..., 0].size - 1)
    for given in (images[0], paths[0], Image.fromarray(images[0])):
        with pytest.raises(InputError, match='more than .* pixels'):
            small(given)


def test_arguments_that_do_not_fit_are_named(predictors, images, tmp_path):
    with pytest.raises(UserError, match='uniformer_small is a backbone.*get_model'):
        Predictor('uniformer_small')
    with pytest.raises(UserError, match='no released file of weights of .*nano.*pretrained=PATH'):
        Predictor(CONFIGS['det'])
    with pytest.raises(CheckpointError, match='no.pth does not exist'):
        Predictor(CONFIGS['det'], tmp_path / 'no.pth')
    with pytest.raises(UserError, match='this is a det predictor'):
        predictors['det'](images[0], boxes=[[[0, 0, 9, 9]]])
    for boxes, words in (([], 'for 0 images'), ([[1, 2, 3, 4]], r'shape \(4,\).*\(N, 4\)')):
        with pytest.raises(UserError, match=words):
            predictors['pose'](images[0], boxes=boxes)


def test_layout_and_weights_by_arguments(predictors, images, tmp_path):
    torch.save({'state_dict': predictors['seg'].model.state_dict()}, tmp_path / 'x.pth')
    same = Predictor(CONFIGS['seg'], tmp_path / 'x.pth', 'cpu')
    assert_same(same(images[0]), predictors['seg'](images[0]))
    other = mmuniformer.Predictor(
        CONFIGS['seg'], tmp_path / 'x.pth', 'cpu', stage3_attn='window', window_size=2
    )
    assert other.model.backbone.stage3_attn == 'window'
    (found,) = other(images[0])
    assert not np.array_equal(found['label_map'], predictors['seg'](images[0])[0]['label_map'])
    assert predictors['seg'].meta['classes'][0]
