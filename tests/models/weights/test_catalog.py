"""The list of released files agrees with configs, presets and metafiles."""

import re
from pathlib import Path
from urllib.parse import urlparse

import pytest
from config_helpers import SHIPPED, load

from mmuniformer.analysis.metafile import load_models
from mmuniformer.apis.models import BACKBONES
from mmuniformer.errors import CheckpointError
from mmuniformer.models import UniFormer, UniFormerLight
from mmuniformer.models.weights.catalog import RELEASED_FILES, find_released, released_at
from mmuniformer.models.weights.download import named_hash
from mmuniformer.models.weights.released import file_name, head_dim_by_name

ROOT = Path(__file__).resolve().parents[3]
each_file = pytest.mark.parametrize('file', RELEASED_FILES, ids=lambda file: file.name)


def test_names_are_unique():
    assert len({file.name for file in RELEASED_FILES}) == len(RELEASED_FILES) == 15


@each_file
def test_row_has_the_head_dim_of_the_file(file):
    for row in file.rows:
        if row in BACKBONES:
            kind, arch = BACKBONES[row]
        else:
            backbone = load(row).model.backbone
            arch, light = backbone.arch, 'Light' in backbone.type
            kind = UniFormerLight if light else UniFormer
        assert file.head_dim == kind.presets[arch].head_dim
    assert head_dim_by_name(file.name) in (None, file.head_dim)


@each_file
def test_hashes_and_homes_are_sound(file):
    assert set(file.sha256) <= set('0123456789abcdef')
    assert len(file.sha256) in (0, 8, 64)
    assert file.sha256.startswith(named_hash(file.name))
    assert file.license in ('MIT', 'Apache-2.0')
    for home in file.homes:
        assert released_at(home) is file
        assert file_name(home) == file.name
    assert {urlparse(url).scheme for url in file.urls} == {'https'}


def test_metafiles_give_the_first_home():
    stated = {
        (Path(model['Config']).stem, model['Weights'])
        for metafile in ROOT.glob('configs/*/metafile.yml')
        for model in load_models(metafile)
        if 'Weights' in model
    }
    wholes = {(row, f.urls[0]) for f in RELEASED_FILES for row in f.rows if row in SHIPPED}
    assert stated == wholes
    assert len(wholes) == 15


def test_addresses_in_configs_are_of_released_files():
    """A config that names one home is served by all."""
    addresses = set()
    for path in SHIPPED.values():
        joined = re.sub(r"'\s*\n\s*'", '', path.read_text())
        addresses |= set(re.findall(r"checkpoint='(\w+://[^']+)'", joined))
    assert len(addresses) == 5
    assert all(map(released_at, addresses))


def test_found_by_file_name_stem_and_row():
    file = find_released('upernet_global_small.pth')
    assert find_released('upernet_global_small') is file
    assert find_released('upernet_uniformer-small-global_8xb2-160k_ade20k-512x512') is file
    assert find_released('uniformer_small').name == 'uniformer_small_in1k.pth'
    with pytest.raises(CheckpointError, match='closest are upernet_global_small.pth.*weights list'):
        find_released('upernet_small')
