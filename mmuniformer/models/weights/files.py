"""Read weight files: from a path or a URL, without running code that they may hold."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import struct
import sys
import uuid
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmuniformer.compat import load_file
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.released import file_name, state_dict_of

NOT_WEIGHTS = {
    b'<': 'is a web page, not weights: Google Drive and similar links give one; open the link in '
    'a browser or use gdown, and pass the downloaded file',
    b'version https://git-lfs': 'is a git LFS pointer, not the weights: run `git lfs pull`',
}
"""How files that are no checkpoints start, and what they are."""

HASH_IN_NAME = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,64})(?=[._])')
"""The first digits of a file's SHA-256, as published names carry them; a date is none."""

UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, AssertionError),
    *(AttributeError, LookupError, TypeError, ValueError, MemoryError, OverflowError),
)
"""What torch raises on files that are no checkpoints or end early."""

TIMEOUT = 60
"""Seconds without an answer after which a download fails."""


def load_state_dict_file(
    source: str | Path, map_location: str | torch.device = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Args:
        source: Path or URL.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds: nested or bare weights, often with meta data.

    Raises:
        CheckpointError: It is missing, truncated, no checkpoint, or holds code or no tensor.
    """
    source = str(source)
    path = fetch(source)
    try:
        raw = load_file(path, map_location)
    except UNREADABLE as error:
        raise CheckpointError(unreadable_message(source, path, str(error))) from error
    if not isinstance(raw, Mapping) or not state_dict_of(raw):
        held = f'keys {list(raw)[:8]}' if isinstance(raw, Mapping) else f'a {type(raw).__name__}'
        raise CheckpointError(
            f'{source} holds no weights, but {held}: weights should be tensors by name, bare or '
            'under `state_dict` or `model`'
        )
    return raw


def fetch(source: str) -> Path:
    """Return where a file is on this machine, downloading it if need be."""
    if source.startswith(('http://', 'https://')):
        return download(source)
    if '://' in source:
        raise CheckpointError(
            f'checkpoint {source}: addresses start with http:// or https://; else give a path'
        )
    path = Path(source).expanduser()
    if not path.is_file():
        kind = 'is a folder, not a file' if path.is_dir() else 'does not exist'
        raise CheckpointError(f'checkpoint {source} {kind}: correct the path')
    return path


def download(url: str) -> Path:
    """Fetch a URL once into PyTorch's cache of checkpoints, on one process of a distributed run."""
    path = cached(url)

    def once() -> None:
        if not path.exists() or not has_named_hash(path.name, sha256(path)):
            print_log(f'Downloading {url} to {path}', logger='current')
            receive(url, path)

    try:
        try:
            if is_main_process():
                once()
        finally:
            barrier()
        once()  # the others, on machines that do not share the main process's cache
    except (OSError, HTTPException, ValueError) as error:
        raise CheckpointError(
            f'{url} could not be downloaded ({error}): check the address and the network, or '
            'download the file elsewhere and pass its path'
        ) from error
    return path


def cached(url: str) -> Path:
    """Return where the file of a URL is kept: under its name, if that has a hash, as torch does."""
    name = re.sub(r'[^\w.-]', '_', file_name(url))[-100:]
    if not HASH_IN_NAME.search(name):
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name}'
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def has_named_hash(name: str, digest: str) -> bool:
    """Tell whether a SHA-256 is the one in a file's name; a name without one fits all."""
    named = HASH_IN_NAME.findall(name)
    return not named or digest.startswith(named[-1])


def receive(url: str, path: Path) -> None:
    """Download a file whole or not at all; it has the hash in its name."""
    from rich.console import Console
    from rich.progress import Progress

    shown = sys.stderr.isatty() and is_main_process()
    request = Request(url, headers={'User-Agent': 'mmuniformer'})
    with (
        whole_file(path) as part,
        urlopen(request, timeout=TIMEOUT) as answer,
        Progress(console=Console(stderr=True), disable=not shown) as progress,
    ):
        task = progress.add_task(file_name(url), total=answer.length)
        with open(part, 'wb') as file:
            while block := answer.read(1 << 20):
                file.write(block)
                progress.advance(task, len(block))
        if answer.length:
            raise OSError(f'the connection broke {answer.length:,} bytes before the end')
        if not has_named_hash(path.name, digest := sha256(part)):
            raise OSError(
                f'its SHA-256 starts with {digest[:8]}, not as the name tells: the file is damaged '
                'or was replaced'
            )


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write to, which becomes the file's if all goes well; else nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return a name beside a file, of its suffix, for what will be renamed once it is whole."""
    return path.with_name(f'.part-{uuid.uuid4().hex}{path.suffix}')


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unreadable_message(source: str, path: Path, error: str) -> str:
    """Say what a file that could not be read is, and what to do."""
    _, marker, rest = error.partition('GLOBAL ')
    if marker:
        return (
            f'{source} holds more than weights: {rest.split()[0]} would have to be run to read '
            'it, and is not. Use a file that holds only tensors and plain values; if you trust '
            'this one, rewrite it where it was made: torch.save(checkpoint["state_dict"], ...)'
        )
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
    where = f'{source} (kept as {path})' if '://' in source else source
    for sign, meaning in NOT_WEIGHTS.items():
        if start.startswith(sign):
            return f'{where} {meaning}'
    way_out = 'correct the path, or copy the file again from where it came'
    if '://' in source:
        way_out = 'delete that copy to download it again, or correct the address'
    # torch puts advice around the reason
    error = error.partition('WeightsUnpickler error: ')[2] or error
    reason = ' '.join(error.strip().partition('\n\n')[0].split())[:160]
    return f'{where} is truncated or no PyTorch checkpoint ({reason}): {way_out}'


def load_web_files_as_weights_only() -> None:
    """Keep ``weights_only`` on for checkpoints that mmengine fetches from the web.

    Symptom: a checkpoint given by an http address runs the code in it, while a local file does not:
    mmengine calls ``torch.hub.load_state_dict_from_url``, whose ``weights_only`` is off.
    """
    CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)
    mmengine_checkpoint.load_from_http = load_from_http  # for torchvision:// and the like


def load_from_http(filename: str, map_location: object = None, **_: object) -> dict:
    """Take the place of mmengine's function of this name, by which it logs the kind of source."""
    return load_state_dict_file(filename, map_location)
