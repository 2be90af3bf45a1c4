"""The README's examples run as they are written."""

import re

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmuniformer.apis.config import scope_of
from mmuniformer.apis.models import build_model, get_model
from mmuniformer.models.weights import files

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def examples(repository):
    """The Python code of the README, by the framework that it is for."""
    found = re.findall(r'```python\n(.*?)```', (repository / 'README.md').read_text(), re.DOTALL)
    assert len(found) == 2
    return dict(zip(('det', 'seg'), found, strict=True))


def test_detection_config_builds_a_detector(examples):
    pytest.importorskip('mmdet')
    cfg = Config.fromstring(examples['det'], '.py')
    assert cfg.model.backbone.init_cfg.checkpoint == 'uniformer_small_in1k.pth'
    cfg.model.backbone.init_cfg = None  # the file is not here
    with scope_of(cfg):
        model = build_model(cfg)
    levels = model.extract_feat(torch.zeros(1, 3, 64, 128))
    sizes = [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    assert [tuple(level.shape) for level in levels] == [(1, 256, *size) for size in sizes]


def test_segmentation_example(examples, tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.chdir(tmp_path)
    name = 'upernet_uniformer-small-global_8xb2-160k_ade20k-512x512'
    weights = get_model(name).state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, 'upernet_global_small.pth')
    asked = []

    def fake(address):
        asked.append(address)
        return tmp_path / 'upernet_global_small.pth'

    monkeypatch.setattr(files, 'download', fake)
    Image.new('RGB', (160, 120), (90, 120, 200)).save('street.jpg')
    # The image is enlarged to 2048 x 512, which takes minutes on small machines.
    small = "(name, cfg_options={'test_dataloader.dataset.pipeline.1.scale': (256, 64)}, "
    space = {}
    exec(examples['seg'].replace('(name, ', small), space)
    assert asked == ['hf://Andy1621/uniformer/upernet_global_small.pth']
    assert space['classes'].shape == (120, 160)
    assert 0 <= space['classes'].min() <= space['classes'].max() < 150
    assert space['predictor'].model.backbone.stage3_attn == 'global'
