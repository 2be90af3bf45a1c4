"""Ids of images and categories in COCO files."""

import json

import pytest

from mmuniformer.apis.inference.coco import ImageIds, categories_of, read_coco
from mmuniformer.errors import InputError, UserError


def test_image_ids_are_the_data_sets_the_names_or_a_count(tmp_path):
    numbered = [tmp_path / f'{i:012d}.jpg' for i in (785, 40083)]
    others = [tmp_path / name for name in ('a.jpg', '7.jpg')]
    video = [tmp_path / '7.jpg', tmp_path / '8.mp4']
    assert [*map(ImageIds(numbered), numbered)] == [785, 40083]
    assert [*map(ImageIds(others), others)] == [1, 2]
    ids = ImageIds(video)
    assert [ids(video[0]), ids(video[1], 0), ids(video[1], 1)] == [1, 2, 3]

    images = [
        {'id': 5, 'file_name': 'x/a.jpg'},
        {'id': 6, 'file_name': 'y/a.jpg'},
        {'id': 7, 'file_name': 'b.jpg', 'frame_id': 12},
        {'id': 8, 'file_name': 'v.mp4', 'frame_id': 3},
    ]
    ids = ImageIds([], {'images': images})
    assert ids(tmp_path / 'y' / 'a.jpg') == 6
    assert ids(tmp_path / 'elsewhere' / 'b.jpg') == 7
    assert ids(tmp_path / 'v.mp4', 3) == 8
    for path, index, message in (
        (tmp_path / 'a.jpg', None, 'a.jpg: may be any of several.*x/a.jpg, y/a.jpg'),
        (tmp_path / 'c.jpg', None, 'c.jpg: not among'),
        (tmp_path / 'v.mp4', 4, 'not among'),
    ):
        with pytest.raises(InputError, match=message):
            ids(path, index)


def test_links_to_images_are_looked_up_by_their_own_names(tmp_path):
    (tmp_path / 'y').mkdir()
    (tmp_path / 'store').write_bytes(b'x')
    (tmp_path / 'y' / 'a.jpg').symlink_to(tmp_path / 'store')
    images = [{'id': 5, 'file_name': 'x/a.jpg'}, {'id': 6, 'file_name': 'y/a.jpg'}]
    assert ImageIds([], {'images': images})(tmp_path / 'y' / 'a.jpg') == 6


def test_categories():
    names = ['person'] + [str(i) for i in range(78)] + ['toothbrush']
    ids = [category['id'] for category in categories_of(names)]
    assert (ids[0], ids[11], ids[79], len(set(ids))) == (1, 13, 90, 80)
    assert categories_of(['person', 'box']) == [
        {'id': 1, 'name': 'person'},
        {'id': 2, 'name': 'box'},
    ]
    data_set = {'categories': [{'id': 9, 'name': 'box'}, {'id': 4, 'name': 'person'}]}
    assert [c['id'] for c in categories_of(['person', 'box'], data_set)] == [4, 9]
    with pytest.raises(UserError, match="no category 'ball'"):
        categories_of(['ball'], data_set)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('no json', 'cannot be read as JSON'),
        ('[]', 'is no COCO data set'),
        ('{"images": [1]}', 'is no COCO data set'),
        ('{"images": [{"id": 1}]}', 'is no COCO data set'),
    ],
)
def test_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / 'a.json'
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_coco(path)
    path.write_text(json.dumps({'images': []}))
    assert read_coco(path) == {'images': []}
