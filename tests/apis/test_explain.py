"""Attention maps against the definition of attention, and the figure made of them."""

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.config import Config
from mmengine.dataset import Compose
from new_style import SEGMENTOR
from videos import write_video

from mmuniformer.apis.attention_maps import attention_of, record
from mmuniformer.apis.config import load_config, scope_of, split_data
from mmuniformer.apis.explain import (
    clip_lines,
    heat,
    layout_lines,
    place_name,
    prepare,
    prepare_clip,
    shown_blocks,
    tile,
)
from mmuniformer.apis.models import build_model
from mmuniformer.cli.explain import command
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import UniFormer, UniFormer3D, UniFormerLight, UniFormerLight3D
from mmuniformer.models.mhra import GlobalMHRA
from mmuniformer.visualization.draw import overlay

pytestmark = pytest.mark.frameworks

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def model(backbone=UniFormer, **kwargs):
    torch.manual_seed(0)
    network = backbone('nano', **kwargs).eval()
    for name, parameter in network.named_parameters():
        if 'qkv' in name:
            # Weights as they are drawn at first make attention nearly uniform.
            torch.nn.init.normal_(parameter, std=0.5)
    return network


def image(height=96, width=128):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def loop_row(attn, x, token, rows, columns):
    """Attention of one token, straight from the definition, in its window of rows x columns."""
    h, w = x.shape[1:3]
    top, left = token[0] // rows * rows, token[1] // columns * columns
    qkv = torch.nn.functional.linear(x[0], attn.qkv.weight, attn.qkv.bias)
    padding = attn.qkv.bias  # a zero vector before qkv
    dim = x.shape[-1]
    size = dim // attn.num_heads
    result = torch.full((h, w), torch.nan, dtype=torch.float64)
    result[top : top + rows, left : left + columns] = 0
    for head in range(attn.num_heads):
        part = slice(head * size, (head + 1) * size)
        query = qkv[token][:dim][part]
        keys = {}
        for row in range(top, top + rows):
            for column in range(left, left + columns):
                inside = row < h and column < w
                key = (qkv[row, column] if inside else padding)[dim : 2 * dim][part]
                keys[row, column] = torch.exp((query @ key) / size**0.5)
        total = sum(keys.values())
        for (row, column), value in keys.items():
            if row < h and column < w:
                result[row, column] += value / total / attn.num_heads
    return result


@pytest.mark.parametrize('token', [(0, 0), (4, 6), (2, 3)])
@pytest.mark.parametrize('window', [None, 3, 4])
def test_row_agrees_with_the_definition(token, window):
    torch.manual_seed(1)
    attn = GlobalMHRA(8, 4).double()
    for parameter in attn.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(1, 5, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        row = attention_of(attn, x, token, window)
        expected = loop_row(attn, x, token, window or 5, window or 7)
    torch.testing.assert_close(row, expected, equal_nan=True, atol=1e-12, rtol=0)
    if window is None:
        assert row.sum() == pytest.approx(1)


def matrices_of(network, x):
    """The weights of each attention of a network, as it computes them."""
    from mmuniformer.models import mhra

    found, weights = [], mhra.attention_weights

    def spy(q, k):
        found.append(weights(q, k))
        return found[-1]

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(mhra, 'attention_weights', spy)
        network(x)
    return found


def test_recorded_attention_is_that_of_the_plain_matrix():
    """The whole matrix as the running model computes it, beside the recorded row."""
    network = model(fused_attn=False, stage3_attn='hybrid', window_size=6)
    matrices = matrices_of(network, image())
    found = record(network, image(), query=(0.3, 0.9))
    assert list(found.attention) == [(3, 1), (3, 2), (3, 3), (3, 4), (4, 1)]
    # Stage 3 is 6 x 8 tokens: two windows of 6 x 6, the second padded by 4 columns.
    row, column = int(0.9 * 6), int(0.3 * 8)
    windowed = found.attention[3, 2]
    expected = matrices[1][0, :, row * 6 + column].mean(0).view(6, 6)
    torch.testing.assert_close(windowed[:, :6], expected)
    assert windowed[:, 6:].isnan().all()
    whole = matrices[3][0, :, row * 8 + column].mean(0).view(6, 8)
    torch.testing.assert_close(found.attention[3, 4], whole)
    last = matrices[4][0, :, int(0.9 * 3) * 4 + int(0.3 * 4)].mean(0).view(3, 4)
    torch.testing.assert_close(found.attention[4, 1], last)


def test_recording_leaves_the_network_as_it_was():
    network, x = model(), image()
    with torch.no_grad():
        before = network(x)
        found = record(network, x)
        after = network(x)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert list(found.attention) == [(3, 1), (3, 2), (3, 3), (3, 4), (4, 1)]


def test_kept_patches_are_those_that_the_score_of_the_block_before_ranks_highest():
    found = record(model(UniFormerLight), image())
    assert found.attention == {}
    assert list(found.kept) == [(3, 1), (3, 2), (3, 3), (3, 4), (4, 1), (4, 2)]
    assert found.kept[3, 1].all()
    for block in (2, 3, 4):
        kept, score = found.kept[3, block], found.scores[3, block - 1]
        assert kept.sum() == 6 * 8 // 2
        assert score[kept].min() > score[~kept].max()
    # Patches that did not take part keep their score; the others' is blended.
    dropped = ~found.kept[3, 3]
    assert torch.equal(found.scores[3, 3][dropped], found.scores[3, 2][dropped])
    assert not torch.equal(found.scores[3, 3], found.scores[3, 2])
    assert found.kept[4, 2].sum() == 3 * 4 // 2


@pytest.mark.parametrize(
    ('depths', 'blocks'),
    [
        ((3, 4, 8, 3), [(3, 1), (3, 4), (3, 7), (3, 8), (4, 3)]),
        ((5, 8, 20, 7), [(3, 1), (3, 8), (3, 19), (3, 20), (4, 7)]),
        ((1, 1, 1, 1), [(3, 1), (4, 1)]),
        ((1, 2, 4, 1), [(3, 1), (3, 3), (3, 4), (4, 1)]),
    ],
)
def test_shown_blocks_exist(depths, blocks):
    assert shown_blocks(depths) == blocks


def config(**kwargs):
    preprocessor = {'mean': MEAN, 'std': STD, 'bgr_to_rgb': True}
    backbone = {'type': 'mmuniformer.UniFormer', 'arch': 'nano', 'window_size': 3}
    return Config({'model': {'data_preprocessor': preprocessor, 'backbone': backbone}, **kwargs})


def test_view_is_what_the_network_gets_in_testing():
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'mmdet.Resize', 'scale': (200, 100)}]
    cfg = config(test_dataloader={'dataset': {'pipeline': pipeline}})
    view, tensor = prepare(cfg, np.full((60, 90, 3), (10, 20, 30), np.uint8), (45, 15))
    assert view.image.shape == (100, 150, 3)
    assert tensor.shape == (1, 3, *view.padded) == (1, 3, 128, 160)
    rgb = (np.array([30, 20, 10]) - MEAN) / STD
    np.testing.assert_allclose(tensor[0, :, 50, 50], rgb, rtol=1e-5)
    assert (tensor[0, :, 100:] == 0).all()
    assert (tensor[0, :, :, 150:] == 0).all()
    assert view.query == (75, 25)


def test_channels_stay_blue_green_red_where_the_config_does_not_swap_them():
    cfg = config()
    del cfg.model.data_preprocessor.bgr_to_rgb
    _, tensor = prepare(cfg, np.full((64, 64, 3), (10, 20, 30), np.uint8))
    bgr = (np.array([10, 20, 30]) - MEAN) / STD
    np.testing.assert_allclose(tensor[0, :, 0, 0], bgr, rtol=1e-5)


@pytest.mark.parametrize(
    ('extra', 'size'),
    [
        ({}, (60, 90)),
        ({'codec': {'input_size': (45, 64)}}, (30, 45)),
        ({'test_dataloader': {'dataset': {'pipeline': [{'type': 'PackDetInputs'}]}}}, (60, 90)),
    ],
)
def test_size_of_the_view(extra, size):
    view, _ = prepare(config(**extra), np.zeros((60, 90, 3), np.uint8))
    assert view.image.shape[:2] == size


@pytest.mark.parametrize('query', [(-1, 0), (0, 60), (90, 0)])
def test_query_outside_the_image(query):
    with pytest.raises(UserError, match='90 x 60 pixels'):
        prepare(config(), np.zeros((60, 90, 3), np.uint8), query)


def test_sheet_has_a_line_for_each_layout():
    view, tensor = prepare(config(), np.zeros((64, 96, 3), np.uint8))
    lines = layout_lines(model(window_size=3), view, tensor)
    assert list(lines) == ['global', 'window 3', 'hybrid 3']
    assert [len(tiles) for tiles in lines.values()] == [4, 4, 4]
    assert {image.shape for tiles in lines.values() for image in tiles} == {(267, 400, 3)}
    # A window of 3 x 3 of 4 x 6 tokens, around the query in the center, is not dark.
    lit = [(image[30:].max(-1) > 0).mean() for image in (lines['global'][0], lines['window 3'][0])]
    assert lit[0] > 0.9
    assert 0.3 < lit[1] < 0.6


def test_layer_covers_the_image_without_the_padding():
    colors = np.array([[[10, 20, 30], [40, 50, 60]]], np.uint8)
    image = np.full((4, 6, 3), 200, np.uint8)
    drawn = overlay(image, colors, np.array([[1, 0.5]]), (8, 8))
    assert (drawn[:, :4] == (10, 20, 30)).all()
    assert (drawn[:, 4:] == (120, 125, 130)).all()


def test_heat_is_brightest_at_the_top_and_clear_where_there_is_none():
    colors, opacity = heat(np.array([[0, 1.0], [np.nan, 0.5]]))
    assert colors[0, 0].max() < 10 < colors[1, 1].max() < colors[0, 1].max()
    assert (opacity > 0).tolist() == [[True, True], [False, True]]


def test_query_is_marked_where_it_is():
    view, _ = prepare(config(), np.zeros((64, 96, 3), np.uint8), (72, 48))
    empty = np.zeros((1, 1, 3)), np.zeros((1, 1))
    difference = np.argwhere((tile(view, '', *empty, True) != tile(view, '', *empty)).any(-1))
    assert np.abs(difference.mean(0) - (200, 300)).max() < 2


@pytest.fixture
def files(tmp_path):
    """Configs, checkpoints, an image."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), noise)
    for name, backbone in (('normal', UniFormer), ('light', UniFormerLight)):
        state = {f'backbone.{key}': value for key, value in backbone('nano').state_dict().items()}
        torch.save({'state_dict': state}, tmp_path / f'{name}.pth')
        text = config().pretty_text.replace('UniFormer', backbone.__name__)
        (tmp_path / f'{name}.py').write_text(text.replace('window_size=3', 'out_indices=(3,)'))
    return tmp_path


def run(folder, name, *args, image='image.png'):
    paths = [folder / f'{name}.py', folder / f'{name}.pth', folder / image]
    arguments = [str(a) for a in (*paths, '--out', folder / 'out.png', *args)]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_config_whose_types_are_classes(files):
    pytest.importorskip('mmseg')
    (files / 'normal.py').write_text(SEGMENTOR)
    cfg = load_config(files / 'normal.py')
    assert cfg.model.backbone.type is UniFormer
    view, _ = prepare(cfg, cv2.imread(str(files / 'image.png')))
    assert view.image.shape == (85, 128, 3)
    assert run(files, 'normal').exit_code == 0
    assert (files / 'out.png').is_file()


def test_command_writes_a_figure(files):
    result = run(files, 'normal', '--query', 10, 50)
    assert result.output.splitlines()[-1] == f'wrote {files / "out.png"}'
    written = cv2.imread(str(files / 'out.png'))
    assert written.shape[1] > 1000
    assert written.std() > 20


def test_nothing_is_replaced_without_force(files):
    (files / 'out.png').write_bytes(b'mine')
    with pytest.raises(UserError, match='--force'):
        run(files, 'light')
    assert (files / 'out.png').read_bytes() == b'mine'
    assert run(files, 'light', '--force').exit_code == 0
    assert (files / 'out.png').read_bytes() != b'mine'


def test_bad_input(files):
    with pytest.raises(UserError, match='no.png'):
        run(files, 'normal', image='no.png')
    (files / 'broken.png').write_bytes(b'\x89PNG nothing')
    with pytest.raises(UserError, match='broken.png'):
        run(files, 'normal', image='broken.png')
    with pytest.raises(UserError, match='hourglass'):
        run(files, 'light', '--query', 1, 1)
    (files / 'light.pth').write_bytes((files / 'normal.pth').read_bytes())
    with pytest.raises(CheckpointError, match='class token'):
        run(files, 'light')
    with pytest.raises(UserError, match='use one of the suffixes'):
        run(files, 'normal', '--out', files / 'out.txt')
    text = (files / 'normal.py').read_text()
    (files / 'normal.py').write_text(text.replace('mmuniformer.UniFormer', 'ResNet'))
    with pytest.raises(UserError, match='ResNet'):
        run(files, 'normal')
    (files / 'normal.py').write_text('')
    with pytest.raises(UserError, match='no `model`'):
        run(files, 'normal')
    assert not (files / 'out.png').exists()


def clip(frames=5):
    return torch.randn(1, 3, frames, 64, 96, generator=torch.Generator().manual_seed(0))


def test_recorded_attention_of_a_clip_is_that_of_the_plain_matrix():
    network = model(UniFormer3D, fused_attn=False)
    matrices = matrices_of(network, clip())
    found = record(network, clip(), query=(0.3, 0.9, 0.5))
    # 3 x 4 x 6 tokens in stage 3, 3 x 2 x 3 in stage 4.
    third = matrices[1][0, :, (1 * 4 + 3) * 6 + 1].mean(0).view(3, 4, 6)
    torch.testing.assert_close(found.attention[3, 2], third)
    last = matrices[4][0, :, (1 * 2 + 1) * 3 + 0].mean(0).view(3, 2, 3)
    torch.testing.assert_close(found.attention[4, 1], last)


def test_kept_patches_are_those_of_the_whole_clip():
    found = record(model(UniFormerLight3D), clip())
    for block in (2, 3, 4):
        kept, score = found.kept[3, block], found.scores[3, block - 1]
        assert kept.shape == (3, 4, 6)
        assert kept.sum() == 3 * 4 * 6 // 2
        assert score[kept].min() > score[~kept].max()


TOY = 'uniformer3d-nano_toy-u4-64x64'


@pytest.fixture
def recognizer(tmp_path):
    """The toy recognizer's config and a video; checkpoints of a normal and a light backbone."""
    pytest.importorskip('mmaction')
    write_video(tmp_path / 'clip.avi', 9, size=(80, 64))
    load_config(TOY).dump(tmp_path / 'normal.py')
    light = {'_delete_': True, 'type': 'mmuniformer.UniFormerLight3D', 'arch': 'nano'}
    load_config(TOY, {'model.backbone': light}).dump(tmp_path / 'light.py')
    for name, backbone in (('normal', UniFormer3D), ('light', UniFormerLight3D)):
        torch.save(backbone('nano').state_dict(), tmp_path / f'{name}.pth')
    return tmp_path


@pytest.mark.parametrize('options', [
    {}, {'test_dataloader.dataset.pipeline.2.channel_order': 'bgr'},
    {'model.data_preprocessor.to_rgb': True}, {'test_dataloader.dataset.pipeline.1.num_clips': 3},
], ids=str)  # fmt: skip
def test_clip_is_what_the_network_gets_in_testing(recognizer, options):
    path = recognizer / 'blue.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (80, 64))
    for index in range(8):
        writer.write(np.full((64, 80, 3), (200, 100, 10 * index), np.uint8))
    writer.release()
    cfg = load_config(TOY, options)
    views, tensor = prepare_clip(cfg, path, None)
    with scope_of(cfg):
        data = Compose(split_data(cfg)['pipeline'])({'filename': str(path), 'label': 0})
        preprocessor = build_model(cfg).data_preprocessor
    data = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
    wanted = preprocessor(data)['inputs'][0]
    torch.testing.assert_close(tensor[0], wanted[len(wanted) // 2], rtol=0, atol=1e-5)
    assert len(views) == 4
    assert np.abs(views[0].image[20, 20, :2].astype(int) - (200, 100)).max() < 8
    assert views[0].query == (32, 32)


def test_sheet_of_a_clip_has_a_line_for_each_block_and_a_tile_for_each_token_in_time(recognizer):
    views, tensor = prepare_clip(load_config(TOY), recognizer / 'clip.avi', (10, 50))
    lines = clip_lines(model(UniFormer3D), views, tensor, 3)
    assert list(lines) == [place_name(place) for place in [(3, 1), (3, 3), (3, 4), (4, 1)]]
    assert {tuple(image.shape) for tiles in lines.values() for image in tiles} == {(200, 200, 3)}
    assert [len(tiles) for tiles in lines.values()] == [2] * 4
    unmarked = clip_lines(model(UniFormer3D), views, tensor, 0)[place_name((4, 1))]
    marked = lines[place_name((4, 1))]
    # Another frame asks: the mark is in its tile.
    assert (marked[1][145:170, 20:45] == (255, 255, 0)).all(-1).any()
    assert not (unmarked[1][145:170, 20:45] == (255, 255, 0)).all(-1).any()


def test_command_draws_what_networks_for_clips_attend_to(recognizer):
    assert run(recognizer, 'normal', '--frame', 3, image='clip.avi').exit_code == 0
    height, width, _ = cv2.imread(str(recognizer / 'out.png')).shape
    assert height > 4 * 200
    assert 400 < width < 500
    assert run(recognizer, 'light', '--force', image='clip.avi').exit_code == 0
    for arguments, text in [
        (('normal', '--frame', 4), '--frame 4 is outside the clip: its 4 frames count from 0'),
        (('normal', '--frame', -1), '--frame -1 is outside'),
        (('normal', '--query', 64, 0), 'outside the image of 64 x 64'),
        (('light', '--frame', 0), 'hourglass'),
    ]:
        with pytest.raises(UserError, match=text):
            run(recognizer, *arguments, '--force', image='clip.avi')
    with pytest.raises(UserError, match='no.avi'):
        run(recognizer, 'normal', '--force', image='no.avi')
    settings = ('--cfg-options', 'model.backbone.split=True')
    with pytest.raises(UserError, match='split=True: explain shows'):
        run(recognizer, 'normal', '--force', *settings, image='clip.avi')


def test_frame_is_of_clips(files):
    with pytest.raises(UserError, match='--frame 0: the network takes images'):
        run(files, 'normal', '--frame', 0)


def test_config_of_a_backbone_alone(files):
    (files / 'normal.py').write_text("model = dict(type='mmuniformer.UniFormer', arch='nano')")
    assert run(files, 'normal').exit_code == 0
    assert (files / 'out.png').is_file()
