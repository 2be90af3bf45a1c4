"""What the tests of weight files share."""

import http.server
import threading

import pytest
import torch

from mmuniformer.models.weights import download as downloads


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """An empty cache of torch, no pauses, and no proxy between a test and localhost."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setattr(downloads, 'PAUSES', (0, 0))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY', 'HF_HUB_OFFLINE'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def without_hub(monkeypatch):
    """As where huggingface-hub is not installed."""
    monkeypatch.setattr(downloads, 'has_hub', lambda: False)


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives the server's files, and parts of them, as real ones do; may drop the connection."""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        server = self.server
        span = self.headers.get('Range')
        server.requests.append(self.path)
        server.ranges.append(span)
        content = self.answer()
        limit = server.limits.pop(0) if server.limits else None
        self.wfile.write(content[:limit])

    def answer(self):
        """Send the head of the answer, and return what is to follow."""
        server = self.server
        if self.path not in server.files:
            self.send_response(404, 'Not Found')
            self.send_header('X-Error-Code', 'EntryNotFound')  # as the hub says it
            self.send_header('Content-Length', '0')
            self.end_headers()
            return b''
        content = server.files[self.path]
        etag = f'"{abs(hash(content)):x}"'
        span = self.headers.get('Range') if server.ranged else None
        if self.headers.get('If-Range', etag) != etag:
            span = None
        start = int(span.removeprefix('bytes=').rstrip('-')) if span else 0
        if span and start >= len(content):
            self.send_error(416)
            return b''
        self.send_response(206 if span else 200)
        if span:
            place = f'bytes {start}-{len(content) - 1}/{len(content)}'
            self.send_header('Content-Range', place)
        if server.etags:
            self.send_header('ETag', etag)
        self.send_header('X-Repo-Commit', 'a' * 40)
        self.send_header('Content-Length', str(len(content) - start))
        self.end_headers()
        return content[start:]

    def log_message(self, *args):
        pass


@pytest.fixture
def server(empty_cache):
    """A server on localhost.

    ``files`` has contents by path, ``requests`` the paths asked for and ``ranges`` the parts of
    them; ``limits`` are the bytes after which the next connections break. ``ranged`` and ``etags``
    say whether it can give parts, and tells versions apart.
    """
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    httpd.files, httpd.requests, httpd.ranges, httpd.limits = {}, [], [], []
    httpd.ranged = httpd.etags = True
    httpd.url = f'http://127.0.0.1:{httpd.server_port}'
    thread = threading.Thread(target=httpd.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()
