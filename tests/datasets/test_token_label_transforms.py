"""Label maps from the disk: read, flipped, warped and cut with their images, as released."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

from mmuniformer.datasets.rand_augment import operation
from mmuniformer.datasets.token_labels import moved, read_label_map
from mmuniformer.errors import UserError

pytest.importorskip('mmcv', reason='needs mmcv: make install')
pytestmark = pytest.mark.frameworks
GRID = 18


def build(kind, **settings):
    return TRANSFORMS.build(dict(type=f'mmuniformer.{kind}', **settings))


def numbered_map(classes=2):
    """A map whose logits count the cells."""
    logits = torch.arange(GRID * GRID, dtype=torch.float32).reshape(1, GRID, GRID) + 1
    index = torch.arange(GRID * GRID).reshape(1, GRID, GRID) % classes
    return torch.stack([logits, index]).expand(2, 1, GRID, GRID).contiguous()


@pytest.fixture
def stored(tmp_path):
    """The path of a map, and the sample of its image."""
    path = tmp_path / 'maps' / 'n01440764' / 'n01440764_10026.pt'
    path.parent.mkdir(parents=True)
    torch.save(numbered_map().half(), path)
    return path, {'img_path': f'{tmp_path}/train/n01440764/n01440764_10026.JPEG'}


@pytest.mark.parametrize(
    ('flip', 'direction', 'axes'),
    [(False, None, ()), (True, 'horizontal', (3,)), (True, 'vertical', (2,)),
     (True, 'diagonal', (2, 3))],
)  # fmt: skip
def test_maps_are_loaded_as_their_images_are_flipped(stored, flip, direction, axes):
    path, sample = stored
    load = build('LoadLabelMap', label_root=str(path.parents[1]))
    found = load(sample | {'flip': flip, 'flip_direction': direction})
    assert found['label_map'].dtype == torch.float32
    assert torch.equal(found['label_map'], numbered_map().flip(axes) if axes else numbered_map())
    assert found['label_map_path'] == path


@pytest.mark.parametrize('root', [None, 'none'])
def test_images_pass_without_maps(root):
    sample = {'img_path': 'a/b.png', 'flip': True, 'flip_direction': 'horizontal'}
    found = build('LoadLabelMap', label_root=root)(dict(sample))
    assert found == sample
    assert build('TokenLabels', num_classes=3)(dict(sample)) == sample


class Payload:
    def __reduce__(self):
        return print, ('ran',)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'no tensor', r'cannot be read as a label map .*make or fetch it again'),
        (b'', r'cannot be read as a label map'),
        (Payload(), r'cannot be read as a label map'),
        ({'map': numbered_map()}, r'holds a dict, and a label map is \(2, k, 18, 18\)'),
        (torch.zeros(2, 5, 14, 14), r'holds a tensor \(2, 5, 14, 14\).*set grid of LoadLabelMap'),
        (torch.zeros(5, 18, 18), r'holds a tensor \(5, 18, 18\)'),
        (numbered_map() * torch.nan, r'holds NaN or Inf'),
    ],
)
def test_broken_maps_are_named(content, message, tmp_path, capsys):
    path = tmp_path / 'a.pt'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=rf'{path} {message}'):
        read_label_map(path, GRID)
    assert 'ran' not in capsys.readouterr().out


def test_a_missing_map_is_named(stored):
    path, sample = stored
    load = build('LoadLabelMap', label_root=str(path.parents[1]))
    path.unlink()
    with pytest.raises(UserError, match=rf'{path}, a label map, does not exist'):
        load(sample)


@pytest.mark.parametrize('sign', [1, -1])
@pytest.mark.parametrize('name', ['Rotate', 'ShearX', 'ShearY', 'TranslateX', 'TranslateY'])
def test_warps_move_maps_as_released(name, sign):
    """The authors call SciPy, with rows before columns."""
    ndimage = pytest.importorskip('scipy.ndimage')
    label_map = numbered_map()
    warp = operation(name, 8.3, sign, True, 0)
    a, b, c, d, e, f = warp.matrix(GRID, GRID)
    matrix = [[1, 0, 0, 0], [0, e, d, f], [0, b, a, c]]
    logits, classes = (
        ndimage.affine_transform(part.numpy(), matrix, order=0, mode=mode)
        for part, mode in zip(label_map, ('constant', 'nearest'), strict=True)
    )
    found = moved(label_map, [warp])
    np.testing.assert_array_equal(found[0], logits)
    np.testing.assert_array_equal(found[1], classes)
    assert (found[0] == 0).any()
    assert not torch.equal(found, label_map)
    assert torch.equal(label_map, numbered_map())


def test_warps_move_maps_and_images_alike():
    """A bright left half goes where the cells of the left half go."""
    image = np.zeros((180, 180, 3), np.uint8)
    image[:, :90] = 255
    label_map = torch.zeros(2, 1, GRID, GRID)
    label_map[0, :, :, :9] = 255
    augment = build('TimmAugment', policy='v0', fill=(0, 0, 0))
    for name in ('Rotate', 'ShearX', 'TranslateX', 'TranslateY'):
        operations = [operation(name, 9, 1, True, 0, (0, 0, 0)), operation('Color', 9, 1, True, 0)]
        augment.augment.draw = lambda random, drawn=operations: drawn
        found = augment({'img': image, 'label_map': label_map})
        small = found['img'][5::10, 5::10, 0]
        assert (small == found['label_map'][0, 0].numpy()).mean() > 0.9
        assert (small != image[5::10, 5::10, 0]).mean() > 0.1


def test_crops_tell_their_box_and_draw_their_interpolation(monkeypatch):
    crop = build('RandomResizedCropBox', scale=8, backend='pillow')
    assert crop.crop.crop_ratio_range == (0.08, 1.0)
    assert crop.crop.aspect_ratio_range == (3 / 4, 4 / 3)
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    used, resize = [], 'mmuniformer.datasets.image.token_labels.mmcv.imresize'
    original = __import__('mmcv').imresize
    monkeypatch.setattr(
        resize, lambda *given, **named: used.append(named) or original(*given, **named)
    )
    np.random.seed(0)
    for _ in range(20):
        found = crop({'img': image})
        top, left, height, width = found['crop_box']
        assert 0 <= top <= top + height <= 1 + 1e-9
        assert 0 <= left <= left + width <= 1 + 1e-9
        assert 0.05 < height * width <= 1
        assert found['img'].shape == (8, 8, 3)
        assert found['img_shape'] == (8, 8)
        rows = slice(round(top * 40), round((top + height) * 40))
        columns = slice(round(left * 60), round((left + width) * 60))
        expected = original(image[rows, columns], (8, 8), **used[-1])
        np.testing.assert_array_equal(found['img'], expected)
    assert {named['interpolation'] for named in used} == {'bilinear', 'bicubic'}
    assert {named['backend'] for named in used} == {'pillow'}


def test_labels_are_those_of_the_crop_with_its_axes_exchanged():
    label_map = torch.zeros(2, 1, GRID, GRID)
    label_map[0] = 20
    label_map[1, :, 9:, :9] = 2  # the lower left quarter
    sample = {
        'img': np.zeros((64, 64, 3), np.uint8),
        'gt_label': 1,
        'label_map': label_map,
        'label_map_path': 'a.pt',
        'crop_box': (0.05, 0.55, 0.4, 0.4),  # in the upper right quarter
    }
    target = build('TokenLabels', num_classes=3)(sample)['token_labels']
    assert target.shape == (3, 2 + 2 * 2)
    assert target.argmax(0).tolist() == [1, 2, 2, 2, 2, 2]
    assert target[:, 0].tolist() == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])
    with pytest.raises(UserError, match=r'a.pt names the class 2, .*num_classes=2'):
        build('TokenLabels', num_classes=2)(sample)
    label_map[1, 0, 0, 0] = -1
    with pytest.raises(UserError, match=r'names the class -1'):
        build('TokenLabels', num_classes=3)(sample)
