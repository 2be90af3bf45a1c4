from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

cv2 = pytest.importorskip('cv2')

from mmuniformer.cli import group, toy_data  # noqa: E402
from mmuniformer.datasets.toy import scenes  # noqa: E402
from mmuniformer.datasets.toy import write as toy  # noqa: E402
from mmuniformer.datasets.toy.coco import mask_to_polygons  # noqa: E402
from mmuniformer.datasets.toy.objects import sample_ball, sample_box  # noqa: E402
from mmuniformer.datasets.toy.skeleton import KEYPOINTS  # noqa: E402
from mmuniformer.errors import UserError  # noqa: E402

SMALL = {'train_images': 3, 'val_images': 2, 'size': 64}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob('*') if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def decode(polygons: list, size: int) -> np.ndarray:
    coco_mask = pytest.importorskip('pycocotools.mask')
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, size, size))) > 0


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> toy.ToyData:
    return toy.write_toy_data(tmp_path_factory.mktemp('toy') / 'set', train_images=40, val_images=8)


@pytest.fixture(scope='module')
def people(data) -> list[dict]:
    """Annotations of the training people, with their image (RGB) and label map."""
    content = json.loads((data.coco / 'annotations/person_keypoints_train2017.json').read_text())
    names = {image['id']: image['file_name'] for image in content['images']}
    for person in content['annotations']:
        name = names[person['image_id']]
        image = cv2.imread(str(data.coco / 'train2017' / name))
        labels = data.ade / 'annotations/training' / Path(name).with_suffix('.png')
        person['image'] = image[..., ::-1].astype(int)
        person['labels'] = cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
        joints = np.reshape(person['keypoints'], (17, 3))
        person['joints'] = dict(zip(KEYPOINTS, joints, strict=True))
    return content['annotations']


def pixel(joint) -> tuple[int, int]:
    return int(joint[1] + 0.5), int(joint[0] + 0.5)


@pytest.fixture(scope='module')
def sample() -> list[scenes.Scene]:
    return [toy.toy_scene('train', index, seed=3) for index in range(60)]


class TestBytes:
    def test_same_seed_same_bytes(self, tmp_path):
        first = toy.write_toy_data(tmp_path / 'a', **SMALL)
        second = toy.write_toy_data(tmp_path / 'b', **SMALL)
        assert hashes(first.out) == hashes(second.out)
        assert len(hashes(first.out)) == 5 * 3 + 4 + 1

    def test_another_seed_another_set(self, tmp_path):
        first = toy.write_toy_data(tmp_path / 'a', **SMALL)
        second = toy.write_toy_data(tmp_path / 'b', seed=1, **SMALL)
        same = hashes(first.out).items() & hashes(second.out).items()
        assert not same

    def test_an_image_does_not_depend_on_their_number(self, tmp_path):
        few = toy.write_toy_data(tmp_path / 'a', **SMALL)
        more = toy.write_toy_data(tmp_path / 'b', **{**SMALL, 'train_images': 5, 'val_images': 4})
        images = {k: v for k, v in hashes(few.out).items() if not k.endswith('.json')}
        assert images.items() <= hashes(more.out).items()

    def test_no_picture_is_in_both_splits_or_twice(self, data):
        files = [*data.coco.glob('*2017/*.jpg')]
        assert len(files) == 48
        assert len({file.read_bytes() for file in files}) == 48

    def test_both_data_roots_hold_the_same_pictures(self, data):
        for coco, ade in (('train2017', 'training'), ('val2017', 'validation')):
            left = hashes(data.coco / coco)
            assert left
            assert left == hashes(data.ade / 'images' / ade)


class TestAnnotations:
    def test_files_agree_with_each_other(self, data):
        folder = data.coco / 'annotations'
        for split, number in (('train', 40), ('val', 8)):
            instances = json.loads((folder / f'instances_{split}2017.json').read_text())
            people = json.loads((folder / f'person_keypoints_{split}2017.json').read_text())
            assert [c['name'] for c in instances['categories']] == list(toy.CLASSES)
            assert [c['id'] for c in instances['categories']] == [1, 2, 3]
            assert people['images'] == instances['images']
            assert len(instances['images']) == number
            ids = [entry['id'] for entry in instances['annotations']]
            assert len(set(ids)) == len(ids) == sum(data.instances[split].values())
            persons = [a for a in instances['annotations'] if a['category_id'] == 1]
            assert persons == people['annotations']
            names = {c['id']: c['name'] for c in instances['categories']}
            for name in toy.CLASSES:
                found = sum(names[a['category_id']] == name for a in instances['annotations'])
                assert found == data.instances[split][name] > 0

    def test_polygons_boxes_areas_and_label_maps_agree(self, data):
        content = json.loads((data.coco / 'annotations/instances_train2017.json').read_text())
        for image in content['images']:
            png = data.ade / 'annotations/training' / Path(image['file_name']).with_suffix('.png')
            labels = cv2.imread(str(png), cv2.IMREAD_UNCHANGED)
            assert labels.shape == (128, 128)
            assert set(np.unique(labels)) <= {1, 2, 3, 4}
            drawn = np.ones_like(labels)
            for entry in content['annotations']:
                if entry['image_id'] != image['id']:
                    continue
                mask = decode(entry['segmentation'], 128)
                drawn[mask] = entry['category_id'] + 1
                assert mask.sum() == pytest.approx(entry['area'], rel=0.04)
                rows, cols = np.nonzero(mask)
                edges = [cols.min(), rows.min(), np.ptp(cols) + 1, np.ptp(rows) + 1]
                assert np.abs(np.subtract(edges, entry['bbox'])).max() <= 2
            for label in np.unique(labels):
                assert iou(labels == label, drawn == label) > 0.95

    def test_pycocotools_evaluates_the_truth_to_one(self, data):
        coco = pytest.importorskip('pycocotools.coco')
        cocoeval = pytest.importorskip('pycocotools.cocoeval')
        truth = coco.COCO(str(data.coco / 'annotations/person_keypoints_val2017.json'))
        results = [{**a, 'score': 1.0} for a in truth.dataset['annotations']]
        for kind in ('bbox', 'segm', 'keypoints'):
            evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            assert evaluation.stats[0] == pytest.approx(1.0)


class TestKeypoints:
    def test_visible_joints_lie_on_the_person(self, people):
        seen = 0
        for person in people:
            mask = decode(person['segmentation'], 128)
            near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3)))
            for joint in person['joints'].values():
                if joint[2] == 2:
                    seen += 1
                    assert near[pixel(joint)]
                    assert person['labels'][pixel(joint)] == 2
        assert seen > 10 * len(people)

    def test_three_kinds_of_visibility_occur(self, people):
        joints = np.concatenate([list(person['joints'].values()) for person in people])
        kinds = [(joints[:, 2] == kind).mean() for kind in (0, 1, 2)]
        assert min(kinds) > 0.005
        assert kinds[1] > 0.05
        assert kinds[2] > 0.7
        assert not joints[joints[:, 2] == 0].any()
        inside = joints[joints[:, 2] > 0]
        assert inside[:, :2].min() > -0.5
        assert inside[:, :2].max() < 127.5
        for person in people:
            labeled = [joint for joint in person['joints'].values() if joint[2] > 0]
            assert person['num_keypoints'] == len(labeled) > 4

    def test_the_sides_can_be_told_apart_by_color(self, people):
        warmth = {'left': [], 'right': []}
        for person in people:
            for name, joint in person['joints'].items():
                side, _, part = name.rpartition('_')
                if part in ('wrist', 'elbow', 'knee') and joint[2] == 2:
                    red, _, blue = person['image'][pixel(joint)]
                    warmth[side].append(red > blue)
        assert len(warmth['left']) > 80
        assert np.mean(warmth['left']) > 0.98
        assert np.mean(warmth['right']) < 0.02

    def test_the_left_is_the_figures_own(self, people):
        # Nine in ten figures face the viewer: their left is at the image's right.
        facing = [p for p in people if p['joints']['nose'][2] == 2]
        across = [
            p['joints']['left_shoulder'][0] - p['joints']['right_shoulder'][0]
            for p in facing
            if min(p['joints'][f'{s}_shoulder'][2] for s in ('left', 'right'))
        ]
        assert len(facing) > 0.6 * len(people)
        assert np.mean(np.greater(across, 0)) == 1
        backs = [
            p
            for p in people
            if p['joints']['left_shoulder'][0] < p['joints']['right_shoulder'][0]
            and p['joints']['right_shoulder'][2]
        ]
        assert backs
        assert all(p['joints']['nose'][2] < 2 for p in backs if p['joints']['left_shoulder'][2])


class TestScenes:
    def test_things_hide_each_other_but_never_nearly_wholly(self, sample):
        hidden = np.array([i.hidden for scene in sample for i in scene.instances])
        assert (hidden > 0.1).mean() > 0.15
        assert (hidden > 0.3).mean() > 0.02
        assert hidden.max() <= 1 - scenes.MIN_VISIBLE
        assert min(i.mask.sum() for s in sample for i in s.instances) >= scenes.MIN_AREA

    def test_scales_and_numbers_vary(self, sample):
        heights = [
            np.ptp(np.nonzero(i.mask)[0]) + 1
            for s in sample
            for i in s.instances
            if i.label == 'person' and i.hidden < 0.05
        ]
        assert max(heights) > 1.7 * min(heights)
        assert {sum(i.label == 'person' for i in s.instances) for s in sample} >= {1, 2}
        assert {sum(i.label != 'person' for i in s.instances) for s in sample} >= {1, 2, 3}

    def test_masks_do_not_overlap_and_backgrounds_have_texture(self, sample):
        for scene in sample:
            owners = np.sum([i.mask for i in scene.instances], axis=0)
            assert owners.max() == 1
            background = scene.image[owners == 0].astype(float)
            assert background.std(axis=0).mean() > 3

    def test_what_is_nearly_hidden_is_not_in_the_picture(self, monkeypatch):
        rng = np.random.default_rng(0)
        ball, box = sample_ball(rng, 24), sample_box(rng, 40)
        ball.at, box.at = np.array([60.0, 60.0]), np.array([64.0, 62.0])
        made = []
        for items in ([ball, box], [box]):
            monkeypatch.setattr(scenes, '_sample_items', lambda *_, items=items: items)
            made.append(scenes.sample_scene(np.random.default_rng(1)))
        assert [i.label for i in made[0].instances] == ['box']
        assert np.array_equal(made[0].image, made[1].image)

    def test_size_scales_the_scene(self):
        large, small = (toy.toy_scene('val', 4, size=size) for size in (192, 64))
        assert large.image.shape == (192, 192, 3)
        parts = [
            sum(i.mask.sum() for i in s.instances) / s.image[..., 0].size for s in (large, small)
        ]
        assert 0.5 < parts[0] / parts[1] < 2


class TestPolygons:
    def test_a_ring_keeps_its_hole(self):
        y, x = np.mgrid[:60, :60]
        radius = np.hypot(x - 30, y - 30)
        ring = (radius < 25) & (radius > 12)
        assert iou(decode(mask_to_polygons(ring), 60), ring) > 0.96

    def test_pieces_become_polygons_of_their_own(self):
        mask = np.zeros((40, 40), bool)
        mask[2:10, 2:10] = mask[20:40, 25:40] = True
        polygons = mask_to_polygons(mask)
        assert len(polygons) == 2
        assert np.array_equal(decode(polygons, 40), mask)


class TestFolder:
    def test_the_same_set_is_found_again(self, tmp_path):
        first = toy.write_toy_data(tmp_path, **SMALL)
        before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob('*')}
        again = toy.write_toy_data(tmp_path, **SMALL)
        assert not first.reused
        assert again.reused
        assert again.instances == first.instances
        assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob('*')}

    def test_an_interrupted_set_is_finished(self, tmp_path):
        def stop(done, total):
            assert total == 5
            if done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            toy.write_toy_data(tmp_path / 'a', **SMALL, on_image=stop)
        assert not toy.write_toy_data(tmp_path / 'a', **SMALL).reused
        toy.write_toy_data(tmp_path / 'b', **SMALL)
        assert hashes(tmp_path / 'a') == hashes(tmp_path / 'b')

    def test_other_settings_need_force_which_replaces_no_more_than_the_set(self, tmp_path):
        toy.write_toy_data(tmp_path / 'a', **SMALL)
        (tmp_path / 'a/coco/notes.txt').write_text('mine')
        before = hashes(tmp_path / 'a')
        with pytest.raises(UserError, match='other settings .*size 64.*--force'):
            toy.write_toy_data(tmp_path / 'a', **{**SMALL, 'size': 80})
        assert hashes(tmp_path / 'a') == before
        fewer = {**SMALL, 'train_images': 2}
        toy.write_toy_data(tmp_path / 'a', **fewer, force=True)
        assert (tmp_path / 'a/coco/notes.txt').read_text() == 'mine'
        (tmp_path / 'a/coco/notes.txt').unlink()
        toy.write_toy_data(tmp_path / 'b', **fewer)
        assert hashes(tmp_path / 'a') == hashes(tmp_path / 'b')

    def test_a_folder_with_other_things_is_refused(self, tmp_path):
        (tmp_path / 'thesis.tex').write_text('x')
        with pytest.raises(UserError, match=f'{tmp_path} is not empty .*--force'):
            toy.write_toy_data(tmp_path, **SMALL)
        assert [file.name for file in tmp_path.iterdir()] == ['thesis.tex']
        toy.write_toy_data(tmp_path, **SMALL, force=True)
        assert (tmp_path / 'thesis.tex').read_text() == 'x'

    @pytest.mark.parametrize('name', ['coco/annotations/real.json', 'ade/x.png', 'toy.json'])
    def test_force_spares_what_it_did_not_write(self, tmp_path, name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('precious')
        with pytest.raises(UserError, match='was not written by toy-data'):
            toy.write_toy_data(tmp_path, **SMALL, force=True)
        assert list(hashes(tmp_path)) == [name]
        assert (tmp_path / name).read_text() == 'precious'

    def test_a_lost_file_is_named(self, tmp_path):
        toy.write_toy_data(tmp_path, **SMALL)
        lost = next((tmp_path / 'ade/annotations/training').iterdir())
        lost.unlink()
        with pytest.raises(UserError, match=f'lost 1 of its files .*{lost.name}.*--force'):
            toy.write_toy_data(tmp_path, **SMALL)

    def test_a_file_in_the_way_is_named(self, tmp_path):
        (tmp_path / 'file').write_text('x')
        with pytest.raises(UserError, match='file is a file'):
            toy.write_toy_data(tmp_path / 'file', **SMALL)
        with pytest.raises(UserError, match='cannot be written .*Not a directory'):
            toy.write_toy_data(tmp_path / 'file' / 'deeper', **SMALL)

    @pytest.mark.parametrize(
        ('argument', 'value', 'message'),
        [
            ('train_images', 0, '--images is 0'),
            ('val_images', -1, '--val-images is -1'),
            ('size', 63, '--size is 63.*at least 64'),
            ('seed', -1, '--seed is -1'),
        ],
    )
    def test_values_that_make_no_set(self, tmp_path, argument, value, message):
        with pytest.raises(UserError, match=message):
            toy.write_toy_data(tmp_path / 'a', **{**SMALL, argument: value})
        assert not (tmp_path / 'a').exists()


def test_the_command_says_what_it_wrote_and_found(tmp_path):
    out = tmp_path / 'toy'
    words = [str(out), '--images', '3', '--val-images', '2', '--size', '64']
    first = CliRunner().invoke(toy_data.command, words)
    assert first.exit_code == 0
    assert f'{out} now holds 3 scenes to train on and 2 held out' in first.output
    assert str(out / 'ade') in first.output
    second = CliRunner().invoke(toy_data.command, words)
    assert second.exit_code == 0
    assert f'{out} already holds 3 scenes' in second.output
    found = toy.write_toy_data(out, train_images=3, val_images=2, size=64)
    assert found.reused


def test_the_command_line_ends_with_status_1_and_one_message(tmp_path):
    (tmp_path / 'thesis.tex').write_text('x')
    result = CliRunner().invoke(group, ['toy-data', str(tmp_path), '--images', '2'])
    assert result.exit_code == 1
    assert 'Traceback' not in result.output
    assert f'Error: {tmp_path} is not empty' in result.output


def test_classes_and_colors_match():
    assert toy.CLASSES == ('person', 'box', 'ball')
    assert toy.SEG_CLASSES == ('background', 'person', 'box', 'ball')
    assert len(set(toy.SEG_PALETTE)) == len(toy.SEG_CLASSES)
