"""The code of docs/backbone.md and docs/weights.md runs as it is written, with smaller networks."""

import re
from functools import partial

import pytest
import torch
from mmengine.utils import digit_version

from mmuniformer.apis.models import get_model
from mmuniformer.models.weights import files

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def run(repository, tmp_path, monkeypatch):
    """Run a page's code from top to bottom; return its variables."""
    torch.manual_seed(0)
    path = tmp_path / 'in1k.pth'
    torch.save({'model': get_model('uniformer_small', depths=(1, 1, 4, 1)).state_dict()}, path)
    monkeypatch.setattr(files, 'download', lambda address: path)
    # What a compiler makes of the graph is not the page's business, and takes a minute.
    traced = partial(torch.compile, backend='eager')
    old = digit_version(torch.__version__) < digit_version('2.2')  # as the page says
    monkeypatch.setattr(torch, 'compile', (lambda model: model) if old else traced)

    def run(page):
        text = (repository / 'docs' / page).read_text()
        code = '\n'.join(re.findall(r'```python\n(.*?)```', text, re.DOTALL))
        call = re.compile(r"get_model\(\s*'uniformer_small', ")
        assert len(call.findall(code)) == code.count('get_model(') > 0
        space = {'text': text}
        exec(call.sub(r'\g<0>depths=(1, 1, 4, 1), ', code), space)
        return space

    return run


def test_backbone_page(run):
    space = run('backbone.md')
    assert f'# {space["shapes"]}' in space['text']
    assert space['vector'].shape == (1, 512)
    assert space['hybrid'].stage3_attn == 'hybrid'
    assert space['model'].stage3_attn == 'global'
    with torch.inference_mode():
        maps = space['model'](space['image'])
    assert torch.equal(space['deep'], maps[3])
    for fast, mixed, low, wanted in zip(
        space['fast'], space['mixed'], space['low'], maps, strict=True
    ):
        assert torch.allclose(fast, wanted, atol=1e-4)
        assert mixed.dtype == low.dtype == torch.bfloat16
        assert (mixed - wanted).abs().mean() < 0.02 * wanted.abs().mean()
        assert (low - wanted).abs().mean() < 0.02 * wanted.abs().mean()


def test_layouts_nearly_agree_where_the_image_is_a_window():
    model = get_model('uniformer_nano', stage3_attn='window', window_size=4)
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        window = model(image)
        model.set_stage3_attn('global')
        assert torch.allclose(window[3], model(image)[3], atol=1e-5)


def test_weights_page(run):
    assert run('weights.md')['backbone'].head_dim == 64
