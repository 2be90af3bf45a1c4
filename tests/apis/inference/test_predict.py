"""``mmuniformer predict``: what it writes is what the frameworks say, for every kind of input."""

import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.registry import DefaultScope
from nano_models import CONFIGS, save_weights
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from videos import write_video

from mmuniformer.apis.config import load_config
from mmuniformer.apis.inference import (
    DetTask,
    Frame,
    Frames,
    Network,
    PoseTask,
    SegTask,
    Writer,
    predict_and_write,
    seg,
)
from mmuniformer.apis.inference import predict as run_predict
from mmuniformer.apis.inference.run import attempt, batches
from mmuniformer.apis.models import build_model
from mmuniformer.cli import group
from mmuniformer.engine.precision import as_float32
from mmuniformer.errors import CheckpointError, UserError

pytestmark = pytest.mark.integration


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_weights(tmp_path_factory.mktemp('weights'))


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
def images(toy_root):
    return sorted((toy_root / 'coco' / 'val2017').glob('*.jpg'))


def framework_model(weights, task):
    """The model and config as the frameworks' own functions want them."""
    cfg = load_config(CONFIGS[task])
    model = build_model(cfg, weights / f'{task}.pth')
    cfg.test_pipeline = cfg.test_dataloader.dataset.pipeline
    model.cfg = cfg
    return model


def test_detections_are_the_frameworks_own(predict, weights, images, tmp_path):
    from mmdet.apis import inference_detector

    status, _, found, listing = predict('det', *images[:2], '--score-thr', '0.05')
    assert status == 0
    model = framework_model(weights, 'det')
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = inference_detector(model, [cv2.imread(str(p)) for p in images[:2]])
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
    drawing = cv2.imread(str(tmp_path / 'out' / listing['images'][0]['vis']))
    plain = cv2.imread(str(images[0]))
    assert drawing.shape == plain.shape
    assert np.abs(drawing.astype(int) - plain).mean() > 1


def test_class_maps_are_the_frameworks_own(predict, weights, images, tmp_path):
    from mmseg.apis import inference_model

    status, _, found, listing = predict('seg', images[0])
    assert status == 0
    model = framework_model(weights, 'seg')
    with DefaultScope.overwrite_default_scope('mmseg'):
        theirs = inference_model(model, cv2.imread(str(images[0])))
    theirs = theirs.pred_sem_seg.data[0].numpy()
    assert len(np.unique(theirs)) > 1, 'a map of one class shows nothing'
    with Image.open(tmp_path / 'out' / listing['images'][0]['mask']) as mask:
        assert mask.mode == 'P'
        assert mask.getpalette()[:6] == [110, 116, 130, 222, 82, 70]
        assert np.array_equal(np.asarray(mask), theirs)
    together = sum(rle.decode(r['segmentation']).astype(int) * r['category_id'] for r in found)
    assert np.array_equal(together, theirs)
    assert [c['name'] for c in listing['categories']] == ['background', 'person', 'box', 'ball']


@pytest.mark.parametrize('corners', [False, True])
@pytest.mark.parametrize('classes', [1, 3])
def test_class_maps_of_huge_images_are_the_same(weights, monkeypatch, corners, classes):
    """They are made of some classes at a time, for the memory's sake."""
    network = Network('seg', CONFIGS['seg'], weights / 'seg.pth', 'cpu')
    network.model.align_corners = network.model.decode_head.align_corners = corners
    task = SegTask(network)
    random = np.random.default_rng(0)
    images = [cv2.resize(random.integers(0, 256, (9, 12, 3), np.uint8), (333, 257))] * 2
    frames = [Frame(image) for image in (*images, np.rot90(images[0]))]
    expected = task(frames)
    calls = []
    monkeypatch.setattr(seg, 'LARGEST_LOGITS', 4 * classes * images[0][..., 0].size)
    monkeypatch.setattr(SegTask, 'label_map', lambda *args: calls.append(args) or label_map(*args))
    for found, wanted in zip(task(frames), expected, strict=True):
        assert len(np.unique(wanted)) > 2
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
    assert len(calls) == 3


label_map = SegTask.label_map


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
            image = cv2.imread(str(folder / image['file_name']))
            theirs = inference_topdown(model, image, boxes, 'xywh')
            for record, sample in zip(ours, theirs, strict=True):
                triples = np.array(record['keypoints']).reshape(-1, 3)
                assert np.allclose(triples[:, :2], sample.pred_instances.keypoints[0], atol=0.01)
                assert np.allclose(
                    triples[:, 2], sample.pred_instances.keypoint_scores[0], atol=1e-3
                )
                checked += 1
    assert checked > 2


def test_two_stages_are_detection_then_pose(predict, weights, images, tmp_path):
    _, _, found, _ = predict('det', *images[:2], '--score-thr', '0.05', out='det')
    assert any(record['category_id'] == 1 for record in found), 'nobody was detected'
    detector = ['--det-config', CONFIGS['det'], '--det-checkpoint', weights / 'det.pth']
    _, _, at_once, _ = predict('pose', *images[:2], *detector, '--box-thr', '0.05', out='once')
    boxes = ['--boxes', tmp_path / 'det' / 'predictions.json']
    boxes += ['--ann-file', tmp_path / 'det' / 'images.json']
    _, _, in_steps, _ = predict('pose', *images[:2], *boxes, '--box-thr', '0.05', out='steps')
    people = [r['bbox'] for r in found if r['category_id'] == 1 and min(r['bbox'][2:]) >= 1]
    assert [record['bbox'] for record in at_once] == people
    assert len(in_steps) == len(people) > 2
    for one, other in zip(at_once, in_steps, strict=True):
        # Boxes in the file are rounded, which moves a peak of random heat maps now and then.
        assert np.isclose(one['keypoints'], other['keypoints'], atol=0.5).mean() > 0.9


def test_without_boxes_an_image_is_one_person(predict, images):
    _, _, found, listing = predict('pose', images[0])
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
    assert cv2.imread(str(tmp_path / 'out' / 'vis' / 'photo.jpg')).shape == (96, 64, 3)


def test_bad_inputs_are_skipped_and_the_others_done(predict, images, tmp_path):
    (tmp_path / 'broken.jpg').write_bytes(images[0].read_bytes()[:900])
    (tmp_path / 'empty.mp4').write_bytes(b'')
    (tmp_path / 'nothing').mkdir()
    os.mkfifo(tmp_path / 'pipe.jpg')
    names = ('broken.jpg', 'empty.mp4', 'nothing', 'gone.jpg', 'pipe.jpg')
    bad = [tmp_path / name for name in names]
    status, said, found, listing = predict('seg', *bad[:2], images[0], *bad[2:])
    assert status == 3
    assert found
    assert [image['file_name'] for image in listing['images']] == [images[0].as_posix()]
    said = said.replace(' ', '')  # the console breaks lines
    for path in bad:
        assert f'skipped:{path}:' in said


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems refuse such names')
def test_any_file_name_is_taken_and_shown_on_one_line(predict, images, tmp_path):
    good = [
        '-dash',
        '[x]',
        'a%03d',
        'new\nline',
        '\x1b[31mred',
        'bad\udcff',
        'quote\'"',
        '日本 ü',
        'x' * 251,
    ]
    folder = tmp_path / 'in'
    folder.mkdir()
    for name in good:
        shutil.copy(images[0], folder / f'{name}.jpg')
    (folder / 'a\nskipped: b\x1b[31m\udcff.png').write_bytes(b'x')
    status, said, _, listing = predict('seg', folder)
    assert status == 3
    assert sorted(image['file_name'] for image in listing['images']) == sorted(
        f'{folder}/{name}.jpg' for name in good
    )
    assert all((tmp_path / 'out' / image['mask']).exists() for image in listing['images'])
    assert r'/a\nskipped: b\x1b[31m\udcff.png: cannot be read' in said


def test_nothing_to_predict_on_needs_no_model(predict, tmp_path):
    status, said, found, _ = predict('seg', tmp_path / 'gone.jpg', config='no-such-config')
    assert (status, found) == (3, None)
    assert 'no such file' in said


def test_too_narrow_image_is_skipped(predict, images, tmp_path):
    Image.new('RGB', (900, 6)).save(tmp_path / 'narrow.png')
    status, said, _, listing = predict('seg', tmp_path / 'narrow.png', images[0])
    assert status == 3
    assert 'too small' in said
    assert len(listing['images']) == 1


@pytest.mark.parametrize('task', CONFIGS)
@pytest.mark.parametrize('size', [(1, 500), (20_000, 1)])
def test_images_that_no_pipeline_can_resize_are_skipped(predict, images, tmp_path, task, size):
    narrow = tmp_path / 'narrow.png'
    Image.new('RGB', size).save(narrow)
    status, said, _, listing = predict(task, narrow, images[0], '--batch-size', '2', '--no-vis')
    done = [image['file_name'] for image in listing['images']]
    assert done[-1] == images[0].as_posix()
    # A pose estimator crops its box, whatever the size.
    assert (status, len(done)) == ((0, 2) if task == 'pose' else (3, 1))
    if task != 'pose':
        assert f'skipped:{narrow}:animageof{size[1]}x{size[0]}' in said.replace(' ', '')


@pytest.mark.parametrize('error', [ValueError, OSError, cv2.error])
def test_bugs_keep_their_traceback_and_what_was_done(predict, images, tmp_path, monkeypatch, error):
    """An error of a user's head is neither an unusable image nor a file that cannot be written."""
    from mmseg.models import EncoderDecoder

    calls = []

    def broken(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise error('my own head')
        return test_step(self, *args, **kwargs)

    test_step = EncoderDecoder.test_step
    monkeypatch.setattr(EncoderDecoder, 'test_step', broken)
    with pytest.raises(error, match='my own head'):
        predict('seg', *images[:3])
    listing = json.loads((tmp_path / 'out' / 'images.json').read_text())
    assert [image['file_name'] for image in listing['images']] == [images[0].as_posix()]


def test_cv2_errors_of_a_users_transform_keep_their_traceback(weights, images):
    """They have no text of OpenCV's where Python raises them."""
    network = Network('seg', CONFIGS['seg'], weights / 'seg.pth', 'cpu')

    def transform(results):
        raise cv2.error('my own transform')

    network.pipeline.transforms.insert(1, transform)
    with pytest.raises(cv2.error, match='my own transform'):
        network.prepare({'img': cv2.imread(str(images[0]))})


def test_interrupted_run_says_what_it_did(predict, images, monkeypatch):
    from mmseg.models import EncoderDecoder

    calls = []

    def interrupted(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return test_step(self, *args, **kwargs)

    test_step = EncoderDecoder.test_step
    monkeypatch.setattr(EncoderDecoder, 'test_step', interrupted)
    status, said, _, listing = predict('seg', *images[:4])
    assert (status, len(listing['images'])) == (130, 2)
    assert said.endswith('Interrupted')
    assert '2 images, ' in said
    assert 'predictions.json' in said


def test_poses_of_any_category(predict, images, tmp_path):
    entry = {'image_id': 1, 'bbox': [10, 10, 60, 60]}
    boxes = tmp_path / 'boxes.json'
    content = {
        'images': [{'id': 1, 'file_name': images[0].name}],
        'categories': [{'id': 5, 'name': 'cat'}, {'id': 8, 'name': 'dog'}, {'id': 9, 'name': 'ox'}],
        'annotations': [{**entry, 'category_id': i} for i in (5, 8, 8, 9)]
        + [{'image_id': 1, 'category_id': 8, 'bbox': [10, 10, 0.5, 60]}],
    }
    boxes.write_text(json.dumps(content))
    _, said, found, listing = predict(
        'pose', images[0], '--boxes', boxes, '--box-classes', 'dog,cat', '--batch-size', '2'
    )
    assert [record['category_id'] for record in found] == [5, 8, 8]
    assert [(c['id'], c['name'], len(c['keypoints'])) for c in listing['categories']] == [
        (5, 'cat', 17),
        (8, 'dog', 17),
    ]
    assert '2 boxes not used: not cat, dog' in said
    _, said, found, _ = predict(
        'pose', images[0], '--boxes', boxes, '--box-classes', 'all', out='all'
    )
    assert [record['category_id'] for record in found] == [5, 8, 8, 9]


def test_video_with_a_corrupt_frame(predict, tmp_path):
    clip = write_video(tmp_path / 'clip.avi', 6, corrupt=[2], step=30)
    status, said, found, listing = predict('seg', clip, '--batch-size', '4')
    assert status == 3
    assert '1 of 6 frames are corrupt, from frame 2' in said
    assert [image['frame_id'] for image in listing['images']] == [0, 1, 3, 4, 5]
    assert {record['image_id'] for record in found} == {1, 2, 3, 4, 5}
    masks = sorted(p.name for p in (tmp_path / 'out' / 'masks' / 'clip').iterdir())
    assert masks == [f'{i:06d}.png' for i in (0, 1, 3, 4, 5)]
    drawn = cv2.VideoCapture(str(tmp_path / 'out' / 'vis' / 'clip.mp4'))
    assert drawn.get(cv2.CAP_PROP_FPS) == 10
    frames = []
    while (read := drawn.read())[0]:
        frames.append(read[1].astype(int))
    assert len(frames) == 6, 'a frame was lost, and the video is shorter than its source'
    assert np.abs(frames[2] - frames[1]).mean() < 2, 'the frame before should be held'
    assert np.abs(frames[3] - frames[1]).mean() > 15


def test_two_inputs_of_one_name_keep_apart(predict, images, tmp_path):
    for folder, image in zip('ab', images[:2], strict=True):
        (tmp_path / folder).mkdir()
        shutil.copy(image, tmp_path / folder / 'same.jpg')
    _, _, found, listing = predict('seg', tmp_path / 'a', tmp_path / 'b' / 'same.jpg')
    assert [i['vis'] for i in listing['images']] == [
        'vis/same.jpg',
        'vis/same_2.jpg',
    ]
    assert len({i['mask'] for i in listing['images']}) == 2
    drawn = [cv2.imread(str(tmp_path / 'out' / i['vis'])) for i in listing['images']]
    assert np.abs(drawn[0].astype(int) - drawn[1]).mean() > 3
    assert {record['image_id'] for record in found} == {1, 2}


def test_nothing_is_written_beside_the_results(predict, images, tmp_path, monkeypatch):
    inner = tmp_path / 'a' / 'b c'
    inner.mkdir(parents=True)
    for file in (tmp_path / 'a' / '..ü.jpg', inner / 'own.jpg'):
        shutil.copy(images[0], file)
    monkeypatch.chdir(inner)
    before = sorted(tmp_path.rglob('*'))
    _, _, _, listing = predict('seg', '../..ü.jpg', '../../a/b c/own.jpg')
    after = sorted(tmp_path.rglob('*'))
    written = {path for path in after if path not in before} - {tmp_path / 'out'}
    assert all(tmp_path / 'out' in path.parents for path in written)
    assert [image['vis'] for image in listing['images']] == ['vis/..ü.jpg', 'vis/own.jpg']


def test_results_are_not_replaced_without_force(predict, images, tmp_path):
    assert predict('seg', images[0], '--no-vis')[0] == 0
    assert not (tmp_path / 'out' / 'vis').exists()
    before = (tmp_path / 'out' / 'predictions.json').read_text()
    status, said, *_ = predict('seg', images[1])
    assert status == 1
    assert '--force' in said
    assert (tmp_path / 'out' / 'predictions.json').read_text() == before
    assert predict('seg', images[1], '--force')[0] == 0
    assert (tmp_path / 'out' / 'predictions.json').read_text() != before


def test_python_gives_what_the_command_writes(predict, weights, images, tmp_path):
    _, _, found, listing = predict('det', *images[:2])
    task = DetTask(Network('det', CONFIGS['det'], weights / 'det.pth', 'cpu'), score_thr=0.3)
    frames = Frames([*images[:2], tmp_path / 'gone.jpg'])
    with Writer(tmp_path / 'python', frames.sources) as writer:
        for frame, result in run_predict(task, frames):
            (alone,) = task([Frame(frame.image)])
            assert np.allclose(alone.bboxes, result.bboxes)
            writer.add(task, frame, result)
    assert frames.skipped == [f'{tmp_path}/gone.jpg: no such file, folder or pattern']
    for name, content in (('predictions', found), ('images', listing)):
        assert json.loads((tmp_path / 'python' / f'{name}.json').read_text()) == content


@pytest.mark.parametrize('overlapped', [False, True])
@pytest.mark.parametrize(
    ('name', 'make', 'batch_size'),
    [('det', DetTask, 1), ('det', DetTask, 3), ('seg', SegTask, 2), ('pose', PoseTask, 2)],
)
def test_threads_change_no_byte(
    weights, images, tmp_path, monkeypatch, name, make, batch_size, overlapped
):
    task = make(Network(name, CONFIGS[name], weights / f'{name}.pth', 'cpu'))
    assert not task.overlapped
    monkeypatch.setattr(make, 'overlapped', overlapped)
    clip = write_video(tmp_path / 'clip.avi', 5, corrupt=[2], step=30)
    narrow = tmp_path / 'narrow.png'
    Image.new('RGB', (900, 1)).save(narrow)
    inputs = [*images[:2], narrow, tmp_path / 'gone.jpg', clip, images[2]]
    frames = Frames(inputs)
    with Writer(tmp_path / 'plain', frames.sources) as writer:
        for batch in batches(frames, batch_size, frames.max_pixels):
            for frame, result in zip(batch, attempt(task, batch), strict=True):
                if isinstance(result, UserError):
                    frames.skipped.append(str(result))
                else:
                    writer.add(task, frame, result)
    threaded = Frames(inputs)
    with Writer(tmp_path / 'threads', frames.sources) as writer:
        done = sum(1 for _ in predict_and_write(task, threaded, writer.add, batch_size))
    assert done == len(writer.images) == (8 if name == 'pose' else 7)
    assert sorted(threaded.skipped) == sorted(frames.skipped)
    assert (threaded.read, threaded.total) == (frames.read, frames.total)
    plain, threads = (
        {file.relative_to(tmp_path / kind): file.read_bytes()
         for file in (tmp_path / kind).rglob('*') if file.is_file()}
        for kind in ('plain', 'threads')
    )  # fmt: skip
    assert threads == plain
    assert Path('vis/clip.mp4') in plain


def test_half_precision_by_its_flag(predict, images):
    full = predict('pose', images[0], out='full')[2][0]['keypoints']
    half = predict('pose', images[0], '--amp', out='half')[2][0]['keypoints']
    assert full != half
    assert len(full) == len(half)


def test_neighbors_in_a_batch_change_nothing(predict, images, tmp_path):
    """Images of different sizes are not padded to one."""
    wide = tmp_path / 'wide.png'
    cv2.imwrite(str(wide), cv2.resize(cv2.imread(str(images[0])), (180, 100)))
    inputs = [images[0], wide, images[1]]
    thr = ('--score-thr', '0.05')
    single = predict('det', *inputs, *thr, '--batch-size', '1', out='single')[2]
    batched = predict('det', *inputs, *thr, '--batch-size', '3', out='batched')[2]
    assert len(single) == len(batched) > 3
    for one, other in zip(single, batched, strict=True):
        assert one['image_id'] == other['image_id']
        assert np.allclose(one['bbox'], other['bbox'], atol=0.05)


@pytest.mark.parametrize('task', CONFIGS)
def test_half_precision_stays_close_and_inside(weights, images, task):
    image = cv2.imread(str(images[0]))
    sample = {'img': image, 'img_path': None, 'bbox': np.float32([[0, 0, 128, 128]]),
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
        network([network.prepare({**network.meta, **sample})])
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
        (('seg', CONFIGS['seg'], None, 'cuda:99'), UserError, 'device cuda:99'),
        (('seg', CONFIGS['seg'], None, 'gpu'), UserError, 'device gpu'),
    ],
)
def test_what_cannot_work_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Network(*arguments)


@pytest.mark.parametrize(
    ('task', 'option', 'message'),
    [
        ('det', 'model.roi_head.bbox_head.num_classes=5', '3 classes in the file, 5 in the model'),
        ('seg', 'model.decode_head.num_classes=7', '4 classes in the file, 7 in the model'),
        ('pose', 'model.head.out_channels=5', '17 keypoints in the file, 5 in the model'),
    ],
)
def test_checkpoint_of_other_classes_is_refused(predict, images, task, option, message):
    status, said, found, _ = predict(task, images[0], '--cfg-options', option)
    assert (status, found) == (1, None)
    assert message in said


@pytest.mark.parametrize(
    ('kind', 'outputs', 'sound'),
    [('gaussian', 17, True), ('combined', 51, True), ('combined', 17, False)],
)
def test_heads_with_three_outputs_a_keypoint_are_counted_so(kind, outputs, sound):
    codec = {
        'type': 'UDPHeatmap', 'input_size': (96, 128), 'heatmap_size': (24, 32),
        'heatmap_type': kind,
    }  # fmt: skip
    head = {
        'type': 'HeatmapHead', 'in_channels': 64, 'out_channels': outputs, 'decoder': codec,
        '_delete_': True, 'loss': {'type': 'KeypointMSELoss'},
    }  # fmt: skip
    network = Network('pose', CONFIGS['pose'], device='cpu', cfg_options={'model.head': head})
    if sound:
        assert len(PoseTask(network).categories[0]['keypoints']) == 17
    else:
        with pytest.raises(UserError, match=r'17 outputs, 3 for each .* describes 17 keypoints'):
            PoseTask(network)


def test_names_for_another_number_of_classes_are_refused(predict, images):
    status, said, *_ = predict(
        'det', images[0], '--cfg-options', 'test_dataloader.dataset.metainfo.classes=(a,b)'
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
        (('--box-classes', 'dog,cat'), 'give its category alone'),
        (('--box-classes', 'all'), 'give its category alone'),
    ],
)
def test_boxes_have_one_source(predict, tmp_path, options, message):
    (tmp_path / 'boxes.json').write_text('[]')
    (tmp_path / 'a.jpg').write_bytes(b'x')
    options = [str(tmp_path / 'boxes.json') if o == 'BOXES' else o for o in options]
    status, said, *_ = predict('pose', tmp_path / 'a.jpg', *options)
    assert status == 1
    assert message in said
