"""Weight files from a server: kept by address, checked by hash, whole or not at all."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading

import pytest
import torch

from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.files import cached, download, load_state_dict_file


@pytest.fixture
def server(tmp_path, empty_cache):
    """A server on localhost: its files by path, the requests that it got, and its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            httpd.requests.append(self.path)
            content = httpd.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content[: httpd.limit])

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.files, httpd.requests, httpd.limit = {}, [], None
    httpd.url = f'http://127.0.0.1:{httpd.server_port}'
    thread = threading.Thread(target=httpd.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def kept_files(tmp_path):
    return [name for _, _, names in os.walk(tmp_path / 'cache') for name in names]


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


def test_a_connection_that_breaks_leaves_nothing(server, tmp_path):
    server.files, server.limit = {'/weights.pth': bytes(3_000_000)}, 2_000_000
    with pytest.raises(CheckpointError, match='broke 1,000,000 bytes before the end'):
        download(f'{server.url}/weights.pth')
    assert kept_files(tmp_path) == []
    server.limit = None
    assert download(f'{server.url}/weights.pth').stat().st_size == 3_000_000


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
