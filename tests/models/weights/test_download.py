"""Weight files from a server: kept by address, checked by hash, whole or not at all."""

import dataclasses
import hashlib
import os
import subprocess
import sys

import pytest
import torch

from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights import catalog
from mmuniformer.models.weights.catalog import HubFile, normalized
from mmuniformer.models.weights.download import Identity, cached, download
from mmuniformer.models.weights.files import load_state_dict_file

NAME = 'net-{}.pth'
"""Of a file whose hash is known."""


def kept_files(tmp_path):
    """Names of files in the cache, but for locks."""
    names = (name for _, _, names in os.walk(tmp_path / 'cache') for name in names)
    return [name for name in names if not name.startswith('.lock-')]


def with_hash(content):
    """A name that states the content's hash."""
    return NAME.format(hashlib.sha256(content).hexdigest()[:8])


@pytest.mark.parametrize(
    'paths',
    [
        ('/small/download', '/base/download'),
        ('/a/epoch_12.pth', '/b/epoch_12.pth'),
        ('/file?id=1', '/file?id=2'),
    ],
)
def test_addresses_with_the_same_last_part_are_two_files(server, paths):
    server.files = {path: path.encode() for path in paths}
    found = [download(server.url + path) for path in paths]
    assert [path.read_bytes() for path in found] == list(server.files.values())


def test_one_address_is_fetched_once(server):
    server.files = {'/weights.pth': b'1'}
    path = download(f'{server.url}/weights.pth')
    assert download(f'{server.url}/weights.pth') == path
    assert server.requests == ['/weights.pth']
    assert path.name.endswith('_weights.pth')


@pytest.mark.parametrize('url', ['https://host/..', 'https://host/', 'https://host/a/%2e%2e?x=/y'])
def test_an_address_names_no_folder(url, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    assert cached(url).resolve().parent == tmp_path / 'checkpoints'


@pytest.mark.parametrize('name', ['net-{}.pth', 'net-{}_20230724.pth', 'td-hm_8xb128-{}_x.pth'])
def test_a_file_with_the_hash_in_its_name_is_kept_as_torch_keeps_it(server, name):
    name = name.format(hashlib.sha256(b'weights').hexdigest()[:8])
    server.files = {f'/a/{name}': b'weights'}
    assert download(f'{server.url}/a/{name}').name == name
    download(f'{server.url}/mirror/{name}')  # the same file, by its name
    assert server.requests == [f'/a/{name}']


def test_a_file_that_is_not_the_one_its_name_tells_is_refused_before_it_is_read(server, tmp_path):
    mark = tmp_path / 'executed'
    server.files = {'/net-1a2b3c4d.pth': f'cos\nmkdir\n(V{mark}\ntR.'.encode()}
    with pytest.raises(CheckpointError, match='SHA-256 starts with .*damaged or was replaced'):
        load_state_dict_file(f'{server.url}/net-1a2b3c4d.pth')
    assert kept_files(tmp_path) == []
    assert not mark.exists()


def test_a_damaged_copy_is_fetched_again(server):
    name = f'net-{hashlib.sha256(b"weights").hexdigest()[:8]}.pth'
    server.files = {f'/{name}': b'weights'}
    path = cached(f'{server.url}/{name}')
    path.parent.mkdir(parents=True)
    path.write_bytes(b'half')
    assert download(f'{server.url}/{name}').read_bytes() == b'weights'


@pytest.mark.parametrize('name', ['run-20230724.pth', 'epoch-12345678.pth', 'small-in1k.pth'])
def test_dates_and_numbers_are_no_hash(server, name):
    server.files = {f'/{name}': b'weights'}
    assert download(f'{server.url}/{name}').read_bytes() == b'weights'


CONTENT = bytes(range(256)) * 12_000


class TestBreaks:
    """A connection that breaks in the middle, once or always."""

    def test_goes_on_where_it_broke(self, server):
        server.files, server.limits = {'/x.pth': CONTENT}, [1_000_000, 500_000]
        assert download(f'{server.url}/x.pth').read_bytes() == CONTENT
        assert server.ranges == [None, 'bytes=1000000-', 'bytes=1500000-']

    @pytest.mark.parametrize('lacks', ['ranged', 'etags'])
    def test_starts_anew_where_the_server_cannot_go_on(self, server, lacks):
        setattr(server, lacks, False)
        server.files, server.limits = {'/x.pth': CONTENT}, [1_000_000]
        assert download(f'{server.url}/x.pth').read_bytes() == CONTENT
        assert len(server.requests) == 2

    def test_never_joins_two_versions(self, server):
        class Replaced(dict):
            def __getitem__(self, path):
                return super().__getitem__(path) if not server.ranges[1:] else b'new' * 900_000

        server.files, server.limits = Replaced({'/x.pth': CONTENT}), [1_000_000]
        assert download(f'{server.url}/x.pth').read_bytes() == b'new' * 900_000

    def test_every_time_leaves_nothing_of_an_unknown_file(self, server, tmp_path):
        server.files, server.limits = {'/x.pth': CONTENT}, [1_000_000] * 3
        with pytest.raises(CheckpointError, match='broke 72,000 bytes before the end'):
            download(f'{server.url}/x.pth')
        assert kept_files(tmp_path) == []
        assert download(f'{server.url}/x.pth').read_bytes() == CONTENT

    def test_another_run_goes_on_with_a_file_whose_hash_is_known(self, server, tmp_path):
        name = with_hash(CONTENT)
        server.files, server.limits = {f'/{name}': CONTENT}, [1000] * 3
        with pytest.raises(CheckpointError, match='broke'):
            download(f'{server.url}/{name}')
        assert kept_files(tmp_path) == [f'.part-{name}']
        assert download(f'{server.url}/{name}').read_bytes() == CONTENT
        assert server.ranges[-1] == 'bytes=3000-'
        assert kept_files(tmp_path) == [name]

    @pytest.mark.parametrize('left', [b'something else', CONTENT, CONTENT + b'and more'])
    def test_leftovers_that_do_not_fit_do_no_harm(self, server, tmp_path, left):
        name = with_hash(CONTENT)
        server.files = {f'/{name}': CONTENT}
        path = cached(f'{server.url}/{name}')
        path.parent.mkdir(parents=True)
        path.with_name(f'.part-{name}').write_bytes(left)
        if left == b'something else':
            with pytest.raises(CheckpointError, match='damaged or was replaced'):
                download(f'{server.url}/{name}')
            assert kept_files(tmp_path) == []
        assert download(f'{server.url}/{name}').read_bytes() == CONTENT


class TestHomes:
    """Released files: several addresses, size and hash known."""

    @pytest.fixture
    def released(self, server, monkeypatch):
        """Put a file with two homes on the list; the first does not have it."""
        server.files = {'/second/weights.pth': CONTENT}
        homes = (f'{server.url}/first/weights.pth', f'{server.url}/second/weights.pth')
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        file = catalog.ReleasedFile(
            'weights.pth', catalog.DETECTOR, ('row',), 64, homes, 'MIT', sha256, len(CONTENT)
        )
        monkeypatch.setattr(catalog, 'RELEASED_FILES', (file,))
        return file

    def test_second_home_is_asked_where_the_first_fails(self, server, released):
        paths = [download(home) for home in released.homes]
        assert paths[0] == paths[1]
        assert paths[0].read_bytes() == CONTENT
        assert server.requests == ['/first/weights.pth', '/second/weights.pth']

    def test_any_home_stands_for_all(self, server, released):
        server.files = {'/first/weights.pth': CONTENT}
        assert download(released.homes[1]).read_bytes() == CONTENT
        assert server.requests == ['/second/weights.pth', '/first/weights.pth']

    @pytest.mark.parametrize(
        ('content', 'reason'),
        [
            (b'<html>this domain is for sale</html>', 'web page'),
            (CONTENT[:-1] + b'x', 'SHA-256'),
            (CONTENT[:-1], 'bytes instead of 3,072,000'),
        ],
    )
    def test_home_with_another_file_counts_as_failed(self, server, released, content, reason):
        server.files['/first/weights.pth'] = content
        assert download(released.homes[0]).read_bytes() == CONTENT
        del server.files['/second/weights.pth']
        download(released.homes[0]).unlink()
        with pytest.raises(CheckpointError, match=f'first.*{reason}.*second.*404.*pass its path'):
            download(released.homes[0])

    def test_a_home_goes_on_where_another_broke(self, server, released, tmp_path):
        server.files['/first/weights.pth'] = CONTENT
        server.limits = [1000] * 3
        assert download(released.homes[0]).read_bytes() == CONTENT
        assert server.ranges[-1] == 'bytes=3000-'
        assert server.requests[-1] == '/second/weights.pth'

    def test_wrong_hash_is_refused_before_the_file_is_opened(self, server, released, tmp_path):
        mark = tmp_path / 'executed'
        evil = f'cos\nmkdir\n(V{mark}\ntR.'.encode()
        server.files = {'/first/weights.pth': evil, '/second/weights.pth': evil}
        with pytest.raises(CheckpointError, match='instead of'):
            load_state_dict_file(released.homes[0])
        assert not mark.exists()
        assert kept_files(tmp_path) == []

    def test_path_of_a_released_file_that_is_not_there_names_the_way(self, released):
        with pytest.raises(CheckpointError, match='mmuniformer weights fetch weights.pth'):
            load_state_dict_file('checkpoints/weights.pth')


class TestHub:
    """``hf://`` addresses, by huggingface-hub and without it."""

    ADDRESS = 'hf://owner/repo/sub/net.pth'
    PATH = '/owner/repo/resolve/main/sub/net.pth'

    @pytest.fixture(params=['with the hub', 'without it'])
    def hub(self, request, server, tmp_path, monkeypatch):
        monkeypatch.setenv('HF_ENDPOINT', f'{server.url}/')
        if request.param == 'without it':
            request.getfixturevalue('without_hub')
        else:
            pytest.importorskip('huggingface_hub')
            from huggingface_hub import constants

            monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
        server.files = {self.PATH: CONTENT}
        return server

    def test_fetches_once_from_the_mirror(self, hub):
        path = download(self.ADDRESS)
        assert path.read_bytes() == CONTENT
        assert download(self.ADDRESS) == path
        assert download('https://huggingface.co/owner/repo/blob/main/sub/net.pth') == path
        assert hub.requests == [self.PATH]

    def test_a_connection_that_breaks_is_tried_again(self, hub):
        hub.limits = [1_000_000]
        assert download(self.ADDRESS).read_bytes() == CONTENT
        assert hub.requests == [self.PATH] * 2

    def test_offline_means_what_is_here(self, hub, monkeypatch):
        path = download(self.ADDRESS)
        monkeypatch.setenv('HF_HUB_OFFLINE', '1')
        assert download(self.ADDRESS) == path
        for address in (self.ADDRESS.replace('net', 'other'), f'{hub.url}/x.pth'):
            with pytest.raises(CheckpointError, match='HF_HUB_OFFLINE is set'):
                download(address)
        assert hub.requests == [self.PATH]

    def test_not_there(self, hub):
        with pytest.raises(CheckpointError, match='hf://owner/repo/none.pth could not be.*404'):
            download('hf://owner/repo/none.pth')

    def test_wrong_hash(self, hub, monkeypatch):
        file = dataclasses.replace(
            catalog.RELEASED_FILES[0], homes=(self.ADDRESS,), sha256='0' * 64, size=None
        )
        monkeypatch.setattr(catalog, 'RELEASED_FILES', (file,))
        for _ in range(2):
            with pytest.raises(CheckpointError, match='SHA-256 starts with'):
                download(self.ADDRESS)
        right = dataclasses.replace(file, sha256=hashlib.sha256(CONTENT).hexdigest())
        monkeypatch.setattr(catalog, 'RELEASED_FILES', (right,))
        assert download(self.ADDRESS).read_bytes() == CONTENT

    @pytest.mark.parametrize('address', ['hf://owner/net.pth', 'hf://', 'hf://a/b', 'hf://a/b/'])
    def test_incomplete_addresses(self, address, empty_cache):
        with pytest.raises(CheckpointError, match=r'hf://OWNER/REPO\[@REVISION\]/FILE'):
            download(address)

    def test_forms(self):
        assert (
            HubFile.parse('hf://a/b@v1/c/d.pth').url('http://m')
            == 'http://m/a/b/resolve/v1/c/d.pth'
        )
        assert normalized('https://huggingface.co/a/b/resolve/v1/c%20d.pth?download=true') == (
            'hf://a/b@v1/c d.pth'
        )
        for other in ('https://huggingface.co/a/b', 'https://example.org/a/b/resolve/main/c.pth'):
            assert normalized(other) == other


def test_interrupting_leaves_nothing(server, tmp_path, monkeypatch):
    server.files = {'/weights.pth': b'weights'}

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(f'{server.url}/weights.pth')
    assert kept_files(tmp_path) == []


DOWNLOAD = """
import sys, torch
from mmuniformer.models.weights.files import download
rank, init, url = sys.argv[1:]
torch.distributed.init_process_group('gloo', init, rank=int(rank), world_size=2)
print(download(url).read_bytes())
"""


@pytest.mark.slow
def test_two_processes_fetch_once(server, tmp_path):
    server.files = {'/weights.pth': b'weights'}
    arguments = ('-c', DOWNLOAD, '{}', f'file://{tmp_path}/init', f'{server.url}/weights.pth')
    ranks = [
        subprocess.Popen(
            [sys.executable, *(argument.replace('{}', str(rank)) for argument in arguments)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    lines = [rank.communicate(timeout=120)[0].splitlines()[-1] for rank in ranks]
    assert lines == ["b'weights'"] * 2
    assert server.requests == ['/weights.pth']


def test_length_that_looks_like_a_web_page_passes(tmp_path):
    path = tmp_path / 'net.safetensors'
    path.write_bytes((0x3C20).to_bytes(8, 'little') + b'{}')  # b' <' is how it starts
    Identity().check(path)
    path.write_bytes(b' <html>')
    with pytest.raises(OSError, match='is a web page'):
        Identity().check(path)
