"""Bring files from the web: once, whole, from the first of several homes that has them.

What arrives gets its name only after its size and SHA-256 fit what is known of it, and before
anything reads it. Files lie in PyTorch's cache of checkpoints, or in the hub's where
huggingface-hub is installed, which then knows about tokens, mirrors and proxies.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import sys
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from filelock import FileLock
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.catalog import (
    HUB,
    HUB_SCHEME,
    HubFile,
    normalized,
    released_at,
)
from mmuniformer.models.weights.released import file_name

HASH_IN_NAME = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})(?=[._])')
"""The first digits of a file's SHA-256, as published names carry them; a date is none."""

NOT_WEIGHTS = {
    b'<': 'is a web page, not weights: Google Drive and similar links give one; open the link in '
    'a browser or use gdown, and pass the downloaded file',
    b'version https://git-lfs': 'is a git LFS pointer, not the weights: run `git lfs pull`',
}
"""How files that are no checkpoints start, and what they are."""

TIMEOUT = 60
"""Seconds without an answer after which a download fails."""
PAUSES = (1, 2, 4, 8)
"""Seconds before each further try to go on where a connection broke."""


@dataclass(frozen=True)
class Identity:
    """What is known of a file before it is there."""

    sha256: str = ''
    """The first digits."""
    size: int | None = None

    def check(self, path: Path) -> None:
        """Refuse a file that is another one.

        Raises:
            OSError: It is; says in which way.
        """
        with open(path, 'rb') as file:
            start = file.read(64).lstrip()
        for sign, meaning in NOT_WEIGHTS.items():
            if start.startswith(sign) and 0 not in start:  # as the length in a safetensors file
                raise OSError(f'it {meaning}')
        size = path.stat().st_size
        if self.size not in (None, size):
            raise OSError(f'it has {size:,} bytes instead of {self.size:,}: it is damaged')
        if self.sha256 and not (digest := sha256(path)).startswith(self.sha256):
            raise OSError(
                f'its SHA-256 starts with {digest[:8]} instead of {self.sha256[:8]}: the file is '
                'damaged or was replaced'
            )

    def fits(self, path: Path) -> bool:
        """Tell whether a file is there and is this one."""
        try:
            self.check(path)
        except OSError:
            return False
        return True


def download(address: str) -> Path:
    """Return where a file of the web is kept; it is fetched once for all processes of a run.

    Args:
        address: ``https://...``, ``http://...`` or ``hf://OWNER/REPO[@REVISION]/FILE``. One of a
            released file stands for all its homes.

    Raises:
        CheckpointError: No home gives the file, or it is not the one that was published.
    """
    address = normalized(address)
    released = released_at(address)
    homes, known = [address], Identity(named_hash(file_name(address)))
    if released:
        homes += [home for home in released.homes if home != address]
        known = Identity(released.sha256, released.size)
    path = cached(released.homes[0] if released else address)
    found = None
    try:
        if is_main_process():
            found = obtain(homes, path, known)
    finally:
        barrier()
    # The others, maybe on machines that do not share the main process's cache.
    return found or obtain(homes, path, known)


def obtain(homes: list[str], path: Path, known: Identity) -> Path:
    """Return a file from where it is kept, else from the first home that has it."""
    reasons = []
    if known.fits(path):
        return path
    for home in homes:
        try:
            if home.startswith(HUB_SCHEME) and has_hub():
                return from_hub(HubFile.parse(home), known)
            return from_web(web_address(home), path, known)
        except (OSError, HTTPException, ValueError) as error:
            url = web_address(home)
            reasons.append(f'{error}' if homes == [url] else f'{url}: {error}')
    raise CheckpointError(
        f'{homes[0]} could not be downloaded ({"; ".join(reasons)}): check the address and the '
        'network, or download the file elsewhere and pass its path'
    )


def cached(address: str) -> Path:
    """Return where the file of an address is kept: as torch does, if its name has a hash."""
    name = re.sub(r'[^\w.-]', '_', file_name(address))[-100:]
    if not HASH_IN_NAME.search(name):
        name = f'{hashlib.sha256(address.encode()).hexdigest()[:12]}_{name}'
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def named_hash(name: str) -> str:
    """Return the first digits of the SHA-256 that a file's name has, if any."""
    return next(reversed(HASH_IN_NAME.findall(name)), '')


def is_offline() -> bool:
    """Tell whether the user forbids downloads, by the variable that the hub's tools heed."""
    return os.environ.get('HF_HUB_OFFLINE', '').upper() in ('1', 'ON', 'YES', 'TRUE')


def has_hub() -> bool:
    """Tell whether huggingface-hub is installed."""
    return importlib.util.find_spec('huggingface_hub') is not None


def web_address(home: str) -> str:
    """Return the URL of a home; that of the hub's files is on the mirror that is set, if any."""
    if not home.startswith(HUB_SCHEME):
        return home
    return HubFile.parse(home).url(os.environ.get('HF_ENDPOINT') or HUB)


def from_hub(file: HubFile, known: Identity) -> Path:
    """Fetch a file by huggingface-hub, into its cache.

    Raises:
        OSError: It could not be fetched, or is another file.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import HfHubHTTPError

    place = {'repo_id': file.repo, 'filename': file.path, 'revision': file.revision}
    found = try_to_load_from_cache(**place)
    if isinstance(found, str) and known.fits(Path(found)):
        return Path(found)
    refuse_offline()
    endpoint = os.environ.get('HF_ENDPOINT') or HUB
    # The hub's client would try a host that does not answer for half a minute.
    with contextlib.suppress(HTTPError):
        urlopen(Request(file.url(endpoint), method='HEAD'), timeout=TIMEOUT).close()
    for pause in (*PAUSES, None):
        try:
            path = hf_hub_download(
                **place, endpoint=endpoint, force_download=isinstance(found, str)
            )
            break
        except Exception as error:  # also what its HTTP client raises
            if pause is None or isinstance(error, HfHubHTTPError):
                why = str(error).strip().splitlines()[0]
                raise OSError(f'{type(error).__name__}: {why}') from error
            time.sleep(pause)  # the connection broke; the hub keeps what it has
    known.check(Path(path))
    return Path(path)


def refuse_offline() -> None:
    """Refuse a download where the user forbids them, by an OSError."""
    if is_offline():
        raise OSError('HF_HUB_OFFLINE is set, and the file is not on this machine')


def from_web(url: str, path: Path, known: Identity) -> Path:
    """Fetch a file by its URL to a path.

    What an interrupted download leaves stays beside the path where a hash will tell whether its
    continuation fits.

    Raises:
        OSError: It could not be fetched, or is another file.
    """
    refuse_offline()
    path.parent.mkdir(parents=True, exist_ok=True)
    part, lock = (path.with_name(f'.{kind}-{path.name}') for kind in ('part', 'lock'))
    with FileLock(lock):
        if known.fits(path):  # another process brought it meanwhile
            return path
        print_log(f'Downloading {url} to {path}', logger='current')
        keep = bool(known.sha256)
        try:
            Transfer(url, part, known).run()
            keep = False
            known.check(part)
            os.replace(part, path)
        finally:
            if not keep:
                part.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)
    return path


class Transfer:
    """A file on its way, which goes on where a broken connection left off."""

    def __init__(self, url: str, part: Path, known: Identity):
        self.url, self.part, self.known = url, part, known
        self.answered = False
        self.validator: str | None = None
        """What the server calls the version of the file that ``part`` is of."""

    def run(self) -> None:
        """Fetch what is missing.

        Raises:
            OSError, HTTPException: The server does not give it, or every connection broke.
        """
        for pause in (*PAUSES, None):
            if self.known.size and self.held() == self.known.size:
                return
            try:
                return self.receive()
            except HTTPError:
                raise
            except (OSError, HTTPException):
                if pause is None or not self.answered:
                    raise
                time.sleep(pause)

    def held(self) -> int:
        """Return how many bytes are there already."""
        return self.part.stat().st_size if self.part.exists() else 0

    def receive(self) -> None:
        """Fetch what is missing over one connection."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = TextColumn('{task.description}'), BarColumn(), DownloadColumn()
        shown = sys.stderr.isatty() and is_main_process()
        with (
            self.connect() as answer,
            Progress(
                *columns, TransferSpeedColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), disable=not shown,
            ) as progress,
        ):  # fmt: skip
            self.answered = True
            start = self.held() if answer.status == 206 else 0
            validator = answer.headers.get('ETag') or answer.headers.get('Last-Modified')
            # A weak validator does not promise the same bytes.
            self.validator = None if (validator or '').startswith('W/') else validator
            total = start + answer.length if answer.length else None
            task = progress.add_task(file_name(self.url), total=total, completed=start)
            with open(self.part, 'ab' if start else 'wb') as file:
                while block := answer.read(1 << 20):
                    file.write(block)
                    progress.advance(task, len(block))
            if answer.length:
                raise ConnectionError(
                    f'the connection broke {answer.length:,} bytes before the end'
                )

    def connect(self) -> BinaryIO:
        """Open the URL, from where ``part`` ends if a version or a hash will tell that it fits."""
        start = self.held() if self.validator or self.known.sha256 else 0
        headers = {'User-Agent': 'mmuniformer'}
        if start:
            headers['Range'] = f'bytes={start}-'
            headers |= {'If-Range': self.validator} if self.validator else {}
        try:
            answer = urlopen(Request(self.url, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code != 416:
                raise
            self.part.unlink()  # it is longer than the file
            return self.connect()
        given = answer.headers.get('Content-Range', '')
        if answer.status == 206 and not given.startswith(f'bytes {start}-'):
            answer.close()
            raise OSError(f'the server gave {given or "a part"} instead of all from {start:,} on')
        return answer


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
