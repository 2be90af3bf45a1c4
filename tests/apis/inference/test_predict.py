"""``mmuniformer predict``: what it writes is what the frameworks say, for every kind of input."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from torch import nn
from videos import write_video

from mmuniformer.apis.config import load_config
from mmuniformer.apis.inference.network import Network, speed_up
from mmuniformer.apis.models import build_model
from mmuniformer.cli import group
from mmuniformer.engine.precision import as_float32
from mmuniformer.errors import CheckpointError, UserError

CONFIGS = {
    'det': 'mask-rcnn_uniformer-nano_fpn_toy',
    'seg': 'upernet_uniformer-nano_toy-128x128',
    'pose': str(Path(__file__).parents[2] / 'pose_without_refinement.py'),
}
pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random weights of the toy models, whose outputs depend on the picture."""
    folder = tmp_path_factory.mktemp('weights')
    for task, config in CONFIGS.items():
        torch.manual_seed(1)
        model = build_model(load_config(config))
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith('backbone'):
                torch.nn.init.normal_(parameter, std=0.1)
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, folder / f'{task}.pth')
    return folder


@pytest.fixture
def predict(weights, tmp_path):
    """Run the command; return exit status, what it said, and its two JSON files."""

    def run(task, *arguments, out='out', config=None):
        folder = tmp_path / out
        result = CliRunner().invoke(
            group,
            ['predict', task, config or CONFIGS[task], str(weights / f'{task}.pth')]
            + [str(argument) for argument in arguments]
            + ['--out', str(folder), '--device', 'cpu'],
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        said = ' '.join(result.output.split())
        if not (folder / 'predictions.json').exists():
            return result.exit_code, said, None, None
        files = [json.loads((folder / f'{n}.json').read_text()) for n in ('predictions', 'images')]
        return result.exit_code, said, *files

    return run


@pytest.fixture(scope='module')
def pictures(toy_root):
    return sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))


def framework_model(weights, task):
    """The model and config as the frameworks' own functions want them."""
    cfg = load_config(CONFIGS[task])
    model = build_model(cfg, weights / f'{task}.pth')
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
    model.cfg = cfg
    return model


def test_detections_are_the_frameworks_own(predict, weights, pictures, tmp_path):
    from mmdet.apis import inference_detector

    status, _, found, listing = predict('det', *pictures[:2], '--score-thr', '0.05')
    assert status == 0
    model = framework_model(weights, 'det')
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = inference_detector(model, [cv2.imread(str(p)) for p in pictures[:2]])
    for image, sample in zip(listing['images'], theirs, strict=True):
        kept = sample.pred_instances[sample.pred_instances.scores >= 0.05]
        ours = [record for record in found if record['image_id'] == image['id']]
        assert len(ours) == len(kept) > 0
        boxes = np.array([record['bbox'] for record in ours])
        boxes[:, 2:] += boxes[:, :2]
        assert np.allclose(boxes, kept.bboxes, atol=0.02)
        assert np.allclose([record['score'] for record in ours], kept.scores, atol=1e-4)
        assert [record['category_id'] - 1 for record in ours] == kept.labels.tolist()
        masks = np.array([rle.decode(record['segmentation']) for record in ours])
        assert np.array_equal(masks.astype(bool), kept.masks.numpy())
    assert [c['name'] for c in listing['categories']] == ['person', 'box', 'ball']

    data_set = COCO(tmp_path / 'out' / 'images.json')
    assert len(data_set.loadRes(found).anns) == len(found)
    drawing = cv2.imread(str(tmp_path / 'out' / listing['images'][0]['picture']))
    plain = cv2.imread(str(pictures[0]))
    assert drawing.shape == plain.shape
    assert np.abs(drawing.astype(int) - plain).mean() > 1


def test_class_maps_are_the_frameworks_own(predict, weights, pictures, tmp_path):
    from mmseg.apis import inference_model

    status, _, found, listing = predict('seg', pictures[0])
    assert status == 0
    model = framework_model(weights, 'seg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs = inference_model(model, cv2.imread(str(pictures[0])))
    theirs = theirs.pred_sem_seg.data[0].numpy()
    assert len(np.unique(theirs)) > 1, 'a map of one class shows nothing'
    with Image.open(tmp_path / 'out' / listing['images'][0]['mask']) as mask:
        assert mask.mode == 'P'
        assert mask.getpalette()[:6] == [110, 116, 130, 222, 82, 70]
        assert np.array_equal(np.asarray(mask), theirs)
    together = sum(rle.decode(r['segmentation']).astype(int) * r['category_id'] for r in found)
    assert np.array_equal(together, theirs)
    assert [c['name'] for c in listing['categories']] == ['background', 'person', 'box', 'ball']


def test_poses_are_the_frameworks_own(predict, weights, toy_root):
    from mmpose.apis import inference_topdown

    ann_file = toy_root / 'coco' / 'annotations' / 'person_keypoints_val2017.json'
    folder = toy_root / 'coco' / 'val2017'
    status, _, found, listing = predict('pose', folder, '--boxes', ann_file, '--batch-size', '3')
    assert status == 0
    truth = COCO(ann_file)
    assert {image['id'] for image in listing['images']} == set(truth.imgs)
    model = framework_model(weights, 'pose')
    model.dataset_meta = Network('pose', CONFIGS['pose']).meta
    checked = 0
    for number, image in truth.imgs.items():
        ours = [record for record in found if record['image_id'] == number]
        people = [a for a in truth.imgToAnns[number] if not a['iscrowd'] and min(a['bbox'][2:])]
        assert len(ours) == len(people)
        if people:
            boxes = np.array([person['bbox'] for person in people], dtype=np.float32)
            picture = cv2.imread(str(folder / image['file_name']))
            theirs = inference_topdown(model, picture, boxes, 'xywh')
            for record, sample in zip(ours, theirs, strict=True):
                triples = np.array(record['keypoints']).reshape(-1, 3)
                assert np.allclose(triples[:, :2], sample.pred_instances.keypoints[0], atol=0.01)
                assert np.allclose(
                    triples[:, 2], sample.pred_instances.keypoint_scores[0], atol=1e-3
                )
                checked += 1
    assert checked > 2


def test_two_stages_are_detection_then_pose(predict, weights, pictures, tmp_path):
    _, _, found, _ = predict('det', *pictures[:2], '--score-thr', '0.05', out='det')
    assert any(record['category_id'] == 1 for record in found), 'nobody was detected'
    detector = ['--det-config', CONFIGS['det'], '--det-checkpoint', weights / 'det.pth']
    _, _, at_once, _ = predict('pose', *pictures[:2], *detector, '--box-thr', '0.05', out='once')
    boxes = ['--boxes', tmp_path / 'det' / 'predictions.json']
    boxes += ['--ann-file', tmp_path / 'det' / 'images.json']
    _, _, in_steps, _ = predict('pose', *pictures[:2], *boxes, '--box-thr', '0.05', out='steps')
    people = [r['bbox'] for r in found if r['category_id'] == 1 and min(r['bbox'][2:]) >= 1]
    assert [record['bbox'] for record in at_once] == people
    assert len(in_steps) == len(people) > 2
    for one, other in zip(at_once, in_steps, strict=True):
        # Boxes in the file are rounded, which moves a peak of random heat maps now and then.
        assert np.isclose(one['keypoints'], other['keypoints'], atol=0.5).mean() > 0.9


def test_without_boxes_a_picture_is_one_person(predict, pictures):
    _, _, found, listing = predict('pose', pictures[0])
    image = listing['images'][0]
    assert [record['bbox'] for record in found] == [[0, 0, image['width'], image['height']]]
    category = listing['categories'][0]
    assert category['name'] == 'person'
    assert len(found[0]['keypoints']) == 3 * len(category['keypoints'])


def test_results_of_a_rotated_photo_fit_what_people_see(predict, tmp_path):
    photo = Image.new('RGB', (96, 64), (200, 30, 40))
    photo.getexif()[0x0112] = 6
    photo.save(tmp_path / 'photo.jpg', exif=photo.getexif())
    _, _, found, listing = predict('seg', tmp_path / 'photo.jpg')
    assert (listing['images'][0]['width'], listing['images'][0]['height']) == (64, 96)
    assert found[0]['segmentation']['size'] == [96, 64]
    assert cv2.imread(str(tmp_path / 'out' / 'pictures' / 'photo.jpg')).shape == (96, 64, 3)


def test_bad_inputs_are_told_and_the_others_done(predict, pictures, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(pictures[0].read_bytes()[:900])
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'nothing').mkdir()
    bad = [tmp_path / name for name in ('broken.jpg', 'empty.mp4', 'nothing', 'gone.jpg')]
    status, said, found, listing = predict('seg', *bad[:2], pictures[0], *bad[2:])
    assert status == 3
    assert found
    assert [image['file_name'] for image in listing['images']] == [pictures[0].as_posix()]
    said = said.replace(' ', '')  # the console breaks lines
    for path in bad:
        assert f'leftout:{path}:' in said


def test_nothing_to_predict_on_needs_no_model(predict, tmp_path):
    status, said, found, _ = predict('seg', tmp_path / 'gone.jpg', config='no-such-config')
    assert (status, found) == (3, None)
    assert 'no such file' in said


def test_too_narrow_picture_is_told(predict, pictures, tmp_path):
    Image.new('RGB', (900, 6)).save(tmp_path / 'narrow.png')
    status, said, _, listing = predict('seg', tmp_path / 'narrow.png', pictures[0])
    assert status == 3
    assert 'too small' in said
    assert len(listing['images']) == 1


def test_video_with_a_corrupt_frame(predict, tmp_path):
    clip = write_video(tmp_path / 'clip.avi', 6, corrupt=[2], step=30)
    status, said, found, listing = predict('seg', clip, '--batch-size', '4')
    assert status == 3
    assert '2 of 6' in said
    assert [image['frame_id'] for image in listing['images']] == [0, 1, 3, 4, 5]
    assert {record['image_id'] for record in found} == {1, 2, 3, 4, 5}
    masks = sorted(p.name for p in (tmp_path / 'out' / 'masks' / 'clip').iterdir())
    assert masks == [f'{i:06d}.png' for i in (0, 1, 3, 4, 5)]
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / 'pictures' / 'clip.mp4'))
    assert drawn.get(cv2.CAP_PROP_FPS) == 10
    frames = []
    while (read := drawn.read())[0]:
        frames.append(read[1].astype(int))
    assert len(frames) == 6, 'a frame was lost, and the video is shorter than its source'
    assert np.abs(frames[2] - frames[1]).mean() < 2, 'the frame before should be held'
    assert np.abs(frames[3] - frames[1]).mean() > 15


def test_two_inputs_of_one_name_keep_apart(predict, pictures, tmp_path):
    for folder, picture in zip('ab', pictures[:2], strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(picture, tmp_path / folder / 'same.jpg')
    _, _, found, listing = predict('seg', tmp_path / 'a', tmp_path / 'b' / 'same.jpg')
    assert [i['picture'] for i in listing['images']] == [
        'pictures/same.jpg',
        'pictures/same_2.jpg',
    ]
    assert len({i['mask'] for i in listing['images']}) == 2
    drawn = [cv2.imread(str(tmp_path / 'out' / i['picture'])) for i in listing['images']]
    assert np.abs(drawn[0].astype(int) - drawn[1]).mean() > 3
    assert {record['image_id'] for record in found} == {1, 2}


def test_results_are_not_replaced_without_force(predict, pictures, tmp_path):
    assert predict('seg', pictures[0], '--no-pictures')[0] == 0
    assert not (tmp_path / 'out' / 'pictures').exists()
    before = (tmp_path / 'out' / 'predictions.json').read_text()
    status, said, *_ = predict('seg', pictures[1])
    assert status == 1
    assert '--force' in said
    assert (tmp_path / 'out' / 'predictions.json').read_text() == before
    assert predict('seg', pictures[1], '--force')[0] == 0
    assert (tmp_path / 'out' / 'predictions.json').read_text() != before


def test_half_precision_by_its_flag(predict, pictures):
    full = predict('pose', pictures[0], out='full')[2][0]['keypoints']
    half = predict('pose', pictures[0], '--amp', out='half')[2][0]['keypoints']
    assert full != half
    assert len(full) == len(half)


def test_neighbours_in_a_batch_change_nothing(predict, pictures, tmp_path):
    """Pictures of different sizes are not padded to one."""
    wide = tmp_path / 'wide.png'
    cv2.imwrite(str(wide), cv2.resize(cv2.imread(str(pictures[0])), (180, 100)))
    inputs = [pictures[0], wide, pictures[1]]
    thr = ('--score-thr', '0.05')
    single = predict('det', *inputs, *thr, '--batch-size', '1', out='single')[2]
    batched = predict('det', *inputs, *thr, '--batch-size', '3', out='batched')[2]
    assert len(single) == len(batched) > 3
    for one, other in zip(single, batched, strict=True):
        assert one['image_id'] == other['image_id']
        assert np.allclose(one['bbox'], other['bbox'], atol=0.05)


def test_layout_options_reach_the_backbone(weights):
    network = Network('seg', CONFIGS['seg'], weights / 'seg.pth', stage3_attn='window',
                      window_size=4)  # fmt: skip
    assert (network.model.backbone.stage3_attn, network.model.backbone.window_size) == ('window', 4)
    kept = Network('seg', CONFIGS['seg'], window_size=5).model.backbone
    assert (kept.stage3_attn, kept.window_size) == ('global', 5)


@pytest.mark.parametrize('task', CONFIGS)
def test_deployed_and_compiled_networks_predict_alike(weights, pictures, task, monkeypatch):
    picture = cv2.imread(str(pictures[0]))
    sample = {'img': picture, 'img_path': None, 'bbox': np.float32([[0, 0, 128, 128]]),
              'bbox_score': np.ones(1, np.float32)}  # fmt: skip
    compiled, outputs = [], []
    monkeypatch.setattr(nn.Module, 'compile', lambda module: compiled.append(module))
    for ways in ({}, {'deploy': True, 'compiled': True}):
        network = Network(task, CONFIGS[task], weights / f'{task}.pth', **ways)
        backbone = network.model.backbone
        assert (backbone.deployed is not None) == bool(ways)
        assert compiled == [backbone] * bool(ways)
        seen = []
        backbone.register_forward_hook(lambda module, args, out, seen=seen: seen.extend(out))
        network([{**network.meta, **sample}])
        outputs.append(seen)
    for plain, deployed in zip(*outputs, strict=True):
        assert (plain - deployed).abs().max() <= 1e-5 * plain.abs().max()


def test_deploy_is_refused_where_there_is_nothing_to_fold():
    with pytest.raises(UserError, match='--deploy folds backbones of mmuniformer only'):
        speed_up(nn.Module(), deploy=True, compiled=False)


@pytest.mark.parametrize('task', CONFIGS)
def test_half_precision_stays_close_and_inside(weights, pictures, task):
    picture = cv2.imread(str(pictures[0]))
    sample = {'img': picture, 'img_path': None, 'bbox': np.float32([[0, 0, 128, 128]]),
              'bbox_score': np.ones(1, np.float32)}  # fmt: skip
    outputs = []
    for amp in (False, True):
        network = Network(task, CONFIGS[task], weights / f'{task}.pth', amp=amp)
        seen = []
        network.model.backbone.register_forward_hook(
            lambda module, args, output, seen=seen: seen.extend(as_float32(output))
        )
        inner = []
        network.model.backbone.blocks3[0].register_forward_hook(
            lambda module, args, output, inner=inner: inner.append(
                module.mlp.fc1(torch.ones(1, module.mlp.fc1.in_features)).dtype
            )
        )
        network([{**network.meta, **sample}])
        assert inner[0] == (torch.bfloat16 if amp else torch.float32)
        outputs.append(seen)
    for full, half in zip(*outputs, strict=True):
        assert full.dtype == half.dtype == torch.float32
        difference = (full - half).abs().mean() / full.abs().mean()
        assert 0 < difference < 0.05


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (('det', CONFIGS['seg']), UserError, 'use `predict seg`'),
        (('seg', 'no-such-config'), UserError, 'no shipped config'),
        (('seg', CONFIGS['seg'], 'gone.pth'), CheckpointError, 'gone.pth does not exist'),
        (('seg', CONFIGS['seg'], None, 'cuda:99'), UserError, '--device cuda:99'),
        (('seg', CONFIGS['seg'], None, 'gpu'), UserError, '--device gpu'),
    ],
)
def test_what_can_not_work_is_told(arguments, error, message):
    with pytest.raises(error, match=message):
        Network(*arguments)


def test_one_layout_backbones_say_so():
    with pytest.raises(UserError, match='UniFormerLight has one layout only'):
        Network(
            'seg',
            CONFIGS['seg'],
            cfg_options={
                'model.backbone': {'_delete_': True, 'type': 'mmuniformer.UniFormerLight',
                                   'arch': 'nano'}
            },
            stage3_attn='window',
        )  # fmt: skip


@pytest.mark.parametrize(
    ('task', 'option', 'message'),
    [
        ('det', 'model.roi_head.bbox_head.num_classes=5', '3 classes in the file, 5 in the model'),
        ('seg', 'model.decode_head.num_classes=7', '4 classes in the file, 7 in the model'),
        ('pose', 'model.head.out_channels=5', '17 keypoints in the file, 5 in the model'),
    ],
)
def test_checkpoint_of_other_classes_is_refused(predict, pictures, task, option, message):
    status, said, found, _ = predict(task, pictures[0], '--cfg-options', option)
    assert (status, found) == (1, None)
    assert message in said


def test_names_for_another_number_of_classes_are_refused(predict, pictures):
    status, said, *_ = predict(
        'det', pictures[0], '--cfg-options', 'test_dataloader.dataset.metainfo.classes=(a,b)'
    )
    assert status == 1
    assert 'has 3 classes' in said
    assert 'names 2 (a, b' in said


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--det-config', 'x'), 'go together'),
        (('--boxes', 'BOXES', '--det-config', 'x', '--det-checkpoint', 'y'), 'give one of them'),
        (('--boxes', 'BOXES'), 'give the COCO data set'),
    ],
)
def test_people_are_found_one_way(predict, tmp_path, options, message):
    (tmp_path / 'boxes.json').write_text('[]')
    (tmp_path / 'a.jpg').write_bytes(b'x')
    options = [str(tmp_path / 'boxes.json') if o == 'BOXES' else o for o in options]
    status, said, *_ = predict('pose', tmp_path / 'a.jpg', *options)
    assert status == 1
    assert message in said
