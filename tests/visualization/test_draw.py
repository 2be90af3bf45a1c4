"""Drawings show what they should, where they should."""

import cv2
import numpy as np
import pytest

from mmuniformer.visualization import draw


def test_drawings_show_what_they_should_and_leave_the_image_alone():
    image = np.full((120, 160, 3), 90, np.uint8)
    masks = np.zeros((1, 120, 160), bool)
    masks[0, 40:60, 40:60] = True
    drawing = draw.draw_instances(
        image, np.array([[30, 30, 90, 100]]), ['box 0.90'], [(0, 0, 255)], masks
    )
    assert (image == 90).all()
    assert drawing[50, 50, 2] > 150 > drawing[50, 50, 0]
    assert drawing[100, 60].tolist() == [0, 0, 255]
    assert (drawing[110:, 100:] == 90).all()

    points = np.array([[[20, 100], [140, 100], [80, 20]]])
    shown = np.array([[True, True, False]])
    links = [(0, 1), (1, 2)]
    drawing = draw.draw_poses(
        image, np.array([[5, 5, 150, 110]]), points, shown, links,
        [(0, 255, 0), (255, 0, 0)], [(9, 9, 9)] * 3,
    )  # fmt: skip
    assert drawing[100, 80].tolist() == [0, 255, 0]
    assert (drawing[20, 80] == 90).all(), 'an uncertain keypoint was drawn'
    assert (drawing[60, 110] == 90).all(), 'a link to an uncertain keypoint was drawn'

    classes = np.zeros((120, 160), int)
    classes[:, 80:] = 1
    drawing = draw.draw_map(image, classes, ['a', 'b'], [(0, 0, 0), (255, 255, 255)])
    assert drawing[5, 5].tolist() == [45, 45, 45]
    assert drawing[5, -6, 0] in (172, 173)
    assert drawing[5, 79].tolist() == [0, 0, 0], 'the class should be outlined'


def test_labels_stay_inside_small_images():
    for x, y in ((-50, -50), (500, 500)):
        image = np.zeros((20, 30, 3), np.uint8)
        draw.put_label(image, 'a long name', x, y, (0, 200, 0))
        assert image.any()


def test_colors_of_a_palette_or_distinct_ones():
    assert draw.colors([(1, 2, 3), (4, 5, 6)], 2) == [(3, 2, 1), (6, 5, 4)]
    assert len(set(draw.colors('random', 200))) > 190
    assert len(set(draw.colors([(1, 2, 3)], 5))) == 5


def test_contact_sheet_has_a_block_for_each_caption():
    image = np.zeros((20, 30, 3), np.uint8)
    sheet = draw.contact_sheet({'a': [image] * 6, 'b': [image] * 2}, columns=4)
    width, height = 4 * (30 + draw.GAP), 20 + draw.GAP
    assert sheet.shape == (2 * draw.CAPTION + 3 * height, width, 3)
    dark = (sheet == 0).all(-1)
    assert dark.sum() == 8 * image[..., 0].size
    assert (sheet[-height:, width // 2 :] == 255).all()
    for top in (0, draw.CAPTION + 2 * height):
        assert (sheet[top : top + draw.CAPTION] < 128).any(), 'a caption is missing'


@pytest.mark.parametrize('labels', [('X', 'gjpy 0.1', 'ball'), ('left 0.99',), ()])
def test_labels_stand_below_each_other_and_hide_none(labels):
    image = np.zeros((256, 256, 3), np.uint8)
    drawn = draw.draw_labels(image, labels)
    assert not image.any()
    rows = []
    for label, color in zip(labels, draw.colors(None, len(labels)), strict=True):
        (_, height), below = cv2.getTextSize(label, draw.FONT, *draw.text_style(image))
        found = np.flatnonzero((drawn[:, 0] == color).all(1))
        assert len(found) >= height + below  # the whole plate is seen
        rows += found.tolist()
    assert rows == sorted(set(rows))
    assert drawn.any() == bool(labels)
