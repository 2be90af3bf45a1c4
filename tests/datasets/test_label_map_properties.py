"""Label maps of any mode, size and values, whole and damaged, are refused by name or read right."""

import io
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmuniformer.datasets.checks.label_maps import NO_CLASS, check_label_map
from mmuniformer.errors import DataError

pytestmark = pytest.mark.frameworks
pytest.importorskip('mmseg.datasets')

WIDTH, HEIGHT = 12, 9
MODES = {'L': 'png', 'P': 'png', '1': 'png', 'I;16': 'png', 'I': 'tiff', 'F': 'tiff'}
COLORS = {'RGB': 'png', 'RGBA': 'png', 'LA': 'png', 'CMYK': 'tiff'}
FEW = settings(max_examples=200, derandomize=True, deadline=None, database=None)
MANY = settings(max_examples=10_000, deadline=None, database=None, print_blob=True)


class Case(NamedTuple):
    """A label map's labels, its file, and whether that was damaged."""

    labels: np.ndarray
    content: bytes
    damaged: bool


@st.composite
def cases(draw):
    mode = draw(st.sampled_from([*MODES] * 4 + [*COLORS]))
    sides = st.integers(1, 20)
    width, height = draw(st.sampled_from([(WIDTH, HEIGHT)] * 9 + [None])) or (
        draw(sides),
        draw(sides),
    )
    low, high = draw(st.sampled_from([(0, 1), (0, 3), (0, 255), (200, 300), (NO_CLASS, NO_CLASS)]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = noise.integers(low, high + 1, (height, width))
    if mode == 'I':
        labels = labels - draw(st.sampled_from([0, 0, 3]))
    if mode == 'F':
        labels = labels + draw(st.sampled_from([0, 0, 0, 0.5, float('nan')]))
    kinds = {'I;16': np.uint16, 'I': np.int32, 'F': np.float32, '1': bool}
    labels = labels.astype(kinds.get(mode, np.uint8))
    image = Image.fromarray(labels)
    if mode == 'P':
        image = Image.fromarray(labels, mode='P')
        image.putpalette([value // 7 for value in range(768)])
    elif mode in COLORS:
        image = image.convert('RGB').convert(mode) if mode == 'CMYK' else image.convert(mode)
    file = io.BytesIO()
    image.save(file, format=(MODES | COLORS)[mode])
    content = bytearray(file.getvalue())
    harm = draw(st.sampled_from(['none'] * 4 + ['cut', 'flip']))
    place = draw(st.integers(0, len(content) - 1))
    if harm == 'cut':
        content = content[:place]
    elif harm == 'flip':
        content[place] ^= 1 << draw(st.integers(0, 7))
    return Case(labels, bytes(content), harm != 'none')


def read(case, folder):
    """Check a label map, then read it as mmsegmentation does; return why it was refused."""
    from mmseg.datasets.transforms import LoadAnnotations

    path = folder / 'mask.png'
    path.write_bytes(case.content)
    try:
        check_label_map(path, folder / 'image.png')
    except DataError as error:
        return str(error)
    sample = dict(seg_map_path=str(path), reduce_zero_label=False, seg_fields=[])
    found = LoadAnnotations()(sample)['gt_seg_map']
    assert found.shape == (HEIGHT, WIDTH)
    if not case.damaged:
        np.testing.assert_array_equal(found, np.where(case.labels == NO_CLASS, 255, case.labels))
    return None


@pytest.mark.parametrize(
    'runs', [FEW, pytest.param(MANY, marks=pytest.mark.minutes)], ids=['few', 'many']
)
def test_label_maps_are_refused_or_read(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('masks')
    Image.new('RGB', (WIDTH, HEIGHT)).save(folder / 'image.png')
    reasons = []

    @runs
    @given(cases())
    def run(case):
        reason = read(case, folder)
        assert reason is None or str(folder / 'mask.png') in reason
        reasons.append(reason)

    run()
    sys.stdout.write(f'label maps: {len(reasons)} files, {reasons.count(None)} of them read\n')
    assert reasons.count(None) < len(reasons) < 10 * reasons.count(None)
