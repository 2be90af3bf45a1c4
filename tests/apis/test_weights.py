"""Released files by name: fetched, verified, listed."""

import dataclasses
import hashlib

import pytest
import torch
from click.testing import CliRunner

from mmuniformer import cli
from mmuniformer.apis.weights import fetch_released, verify
from mmuniformer.errors import CheckpointError, UserError
from mmuniformer.models import UniFormer
from mmuniformer.models.weights import catalog, download


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A list of one released file, which lies where downloads go; its path."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    home = 'https://example.invalid/nano_in1k.pth'
    path = download.cached(home)
    path.parent.mkdir(parents=True)
    torch.save({'model': UniFormer('nano').state_dict()}, path)
    digest, size = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
    file = catalog.ReleasedFile(
        'nano_in1k.pth', catalog.IMAGENET, ('uniformer_nano',), 16, (home,), 'MIT', digest, size
    )
    monkeypatch.setattr(catalog, 'RELEASED_FILES', (file,))
    return path


def test_fetch_gives_the_path_in_the_cache_or_a_copy(released, tmp_path):
    assert fetch_released('uniformer_nano') == released
    copy = fetch_released('nano_in1k.pth', tmp_path / 'out')
    assert copy == tmp_path / 'out' / 'nano_in1k.pth'
    assert copy.read_bytes() == released.read_bytes()
    with pytest.raises(UserError, match='--force'):
        fetch_released('nano_in1k.pth', tmp_path / 'out')
    fetch_released('nano_in1k.pth', tmp_path / 'out', force=True)
    with pytest.raises(CheckpointError, match='weights list'):
        fetch_released('resnet50')


def test_verify_recognizes_a_file_by_its_hash(released, tmp_path):
    other = tmp_path / 'renamed.pth'
    other.write_bytes(released.read_bytes())
    found = verify(str(other))
    assert found['released as'] == 'nano_in1k.pth (ImageNet classifier)'
    assert found['sha256'].endswith('(equal to what was published)')
    assert found['network'] == f'UniFormer nano, {len(UniFormer("nano").state_dict())} tensors'
    assert found['head_dim'] == '16'


def test_verify_refuses_a_file_that_has_only_the_name(released, tmp_path):
    damaged = tmp_path / 'nano_in1k.pth'
    damaged.write_bytes(released.read_bytes()[:-1] + b'x')
    with pytest.raises(CheckpointError, match='not what was published: its SHA-256 starts with'):
        verify(str(damaged))


def test_verify_says_what_it_can_of_other_files(released, tmp_path, monkeypatch):
    torch.save(UniFormer('nano', in_channels=4).state_dict(), tmp_path / 'own.pth')
    found = verify(str(tmp_path / 'own.pth'))
    assert found['released as'] == found['head_dim'] == 'not known'
    assert found['sha256'].endswith('(none was published to compare with)')
    unknown = dataclasses.replace(catalog.RELEASED_FILES[0], sha256='', size=None)
    monkeypatch.setattr(catalog, 'RELEASED_FILES', (unknown,))
    (tmp_path / 'nano_in1k.pth').write_bytes(released.read_bytes())
    found = verify(str(tmp_path / 'nano_in1k.pth'))
    assert found['sha256'].endswith('(none was published to compare with)')
    (tmp_path / 'empty.pth').write_bytes(b'')
    with pytest.raises(CheckpointError, match='truncated'):
        verify(str(tmp_path / 'empty.pth'))


def test_commands(released):
    done = CliRunner().invoke(cli.group, ['weights', 'fetch', 'uniformer_nano'])
    assert done.output.splitlines()[-1] == str(released)
    done = CliRunner().invoke(cli.group, ['weights', 'verify', str(released)])
    assert 'released as  nano_in1k.pth' in done.output
    done = CliRunner().invoke(cli.group, ['weights', 'list', '*nano*'])
    assert done.output.splitlines() == [
        'nano_in1k.pth',
        f'  ImageNet classifier, {released.stat().st_size / 1e6:.0f} MB, head_dim 16, license MIT',
        '  uniformer_nano',
        '  https://example.invalid/nano_in1k.pth',
    ]
    done = CliRunner().invoke(cli.group, ['weights', 'list', 'resnet*'])
    assert done.output == 'no released file fits\n'
