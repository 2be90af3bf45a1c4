"""The loop from frames to results."""

import pytest
from PIL import Image

from mmuniformer.apis.inference.run import batches, predict
from mmuniformer.apis.inference.sources import Frames
from mmuniformer.errors import InputError


def frames_of(folder, *names):
    for name in names:
        Image.new('RGB', (40, 30)).save(folder / name)
    return Frames([folder / name for name in names])


@pytest.mark.parametrize(
    ('error', 'reason'),
    [(InputError('too small'), 'too small'), (MemoryError(), 'not enough memory')],
)
@pytest.mark.parametrize('batch_size', [1, 2, 4])
def test_a_frame_that_cannot_be_used_is_skipped(tmp_path, batch_size, error, reason):
    names = ['a.png', 'b.png', 'c.png', 'd.png', 'e.png']
    frames = frames_of(tmp_path, *names)

    def task(batch):
        if any(frame.id == 3 for frame in batch):
            raise error
        return [frame.id * 10 for frame in batch]

    results = [(frame.source.name, result) for frame, result in predict(task, frames, batch_size)]
    assert results == [('a', 10), ('b', 20), ('d', 40), ('e', 50)]
    assert frames.skipped == [f'{tmp_path}/c.png: {reason}']


def test_an_error_of_the_caller_is_no_unusable_frame(tmp_path):
    """Results are yielded where errors of the network are caught."""
    frames = frames_of(tmp_path, 'a.png')
    with pytest.raises(InputError, match='mine'):  # noqa: PT012
        for _ in predict(lambda batch: [0], frames):
            raise InputError('mine')
    assert not frames.skipped


@pytest.mark.parametrize(
    ('max_pixels', 'lengths'), [(9000, [3, 2]), (3600, [3, 2]), (2400, [2, 2, 1]), (1, [1] * 5)]
)
def test_large_images_make_small_batches(tmp_path, max_pixels, lengths):
    frames = frames_of(tmp_path, *(f'{name}.png' for name in 'abcde'))  # of 1200 pixels
    seen = list(batches(frames, 3, max_pixels))
    assert [len(batch) for batch in seen] == lengths
    assert [frame.id for batch in seen for frame in batch] == [1, 2, 3, 4, 5]
