"""docs/configs.md: every config that it shows trains as it is written."""

from __future__ import annotations

import re

import pytest
from mmengine.config import Config

from mmuniformer.apis.train import train
from mmuniformer.cli import group

pytestmark = [pytest.mark.integration, pytest.mark.frameworks]


@pytest.fixture
def folder(toy_root, repository, tmp_path, monkeypatch):
    """An empty folder with the toy data and the files of the guide."""
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'toy').symlink_to(toy_root)
    text = (repository / 'docs' / 'configs.md').read_text()
    inherits, new_style = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    (tmp_path / 'inherits.py').write_text(inherits)
    (tmp_path / 'new_style.py').write_text(new_style)
    line = re.search(r'(?m)^mmuniformer (config .*)$', text)[1]
    group.main(line.split(), standalone_mode=False)
    trained = re.findall(r'mmuniformer train (\w+\.py)', text)
    assert trained == ['recipe.py', 'inherits.py', 'new_style.py']
    return tmp_path


@pytest.mark.parametrize(
    ('name', 'layout', 'batch_size', 'optimizer'),
    [
        ('recipe.py', 'hybrid', 8, 3e-3),
        ('inherits.py', 'global', 4, 3e-3),
        ('new_style.py', 'global', 8, 1e-3),
    ],
)
def test_shown_config_trains(folder, name, layout, batch_size, optimizer):
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 9, 'log_level': 'ERROR'}
    options['experiment_name'] = str(folder)
    model = train(name, cfg_options=options)
    assert model.backbone.stage3_attn == layout
    saved = Config.fromfile(folder / 'work_dirs' / name.removesuffix('.py') / name)
    assert saved.train_dataloader.batch_size == batch_size
    assert saved.optim_wrapper.optimizer.lr == optimizer
