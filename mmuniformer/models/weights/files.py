"""Read weight files: from a path or a URL, without running code that they may hold."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.released import file_name, weights_of

RELEASED_GLOBALS = (argparse.Namespace,)
"""Harmless classes in files of training scripts: the options that a run was started with."""

NOT_WEIGHTS = {
    b'<': 'is a web page, not weights: Google Drive and similar links give one; open the link in '
    'a browser or use gdown, and pass the downloaded file',
    b'version https://git-lfs': 'is a git LFS pointer, not the weights: run `git lfs pull`',
}
"""How files that are no checkpoints start, and what they are."""


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
        with allowed(RELEASED_GLOBALS):
            raw = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(unpickling_message(source, path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(broken_message(source, path, str(error))) from error
    if not isinstance(raw, Mapping) or not weights_of(raw):
        held = f'keys {list(raw)[:8]}' if isinstance(raw, Mapping) else f'a {type(raw).__name__}'
        raise CheckpointError(
            f'{source} holds no weights, but {held}: weights should be tensors by name, bare or '
            'under `state_dict` or `model`'
        )
    return raw


def fetch(source: str) -> Path:
    """Return where a file is on this machine, downloading it if need be.

    Raises:
        CheckpointError: It is not there.
    """
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
    """Fetch a URL once into PyTorch's cache of checkpoints, on one process of a distributed run.

    mmengine's ``CheckpointLoader`` would read it with ``weights_only`` off: that is the default of
    torch.hub for what comes from the web.

    Raises:
        CheckpointError: The server can't be reached or does not give the file.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', file_name(url))

    def once() -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            print_log(f'Downloading {url} to {path}', logger='current')
            torch.hub.download_url_to_file(url, str(path), progress=is_main_process())

    try:
        try:
            if is_main_process():
                once()
        finally:
            barrier()
        once()
    except (OSError, HTTPException, ValueError) as error:
        raise CheckpointError(
            f'{url} could not be downloaded ({error}): check the address and the network, or '
            'download the file elsewhere and pass its path'
        ) from error
    return path


@contextmanager
def allowed(classes: tuple[type, ...]) -> Iterator[None]:
    """Let ``weights_only`` loading accept some more classes, if torch can be told to."""
    if not hasattr(torch.serialization, 'safe_globals'):  # torch < 2.5
        yield
        return
    # Leaving the context forgets its classes, also those that were allowed before it.
    known = torch.serialization.get_safe_globals()
    with torch.serialization.safe_globals([cls for cls in classes if cls not in known]):
        yield


def unpickling_message(source: str, path: Path, error: str) -> str:
    """Tell a file that holds code from one that is no checkpoint."""
    _, marker, rest = error.partition('GLOBAL ')
    if not marker:
        return broken_message(source, path, error)
    return (
        f'{source} holds more than weights: {rest.split()[0]} would have to be run to read it, '
        'and is not. Use a file that holds only tensors and plain values; if you trust this one, '
        'rewrite it where it was made: torch.save(checkpoint["state_dict"], ...)'
    )


def broken_message(source: str, path: Path, error: str) -> str:
    """Say what a file that can't be read is, and what to do."""
    with open(path, 'rb') as file:
        start = file.read(64).lstrip()
    where = source if str(path) == source else f'{source} (kept as {path})'
    for sign, meaning in NOT_WEIGHTS.items():
        if start.startswith(sign):
            return f'{where} {meaning}'
    reason = ' '.join(error.split())[:160]
    return (
        f'{where} is truncated or no PyTorch checkpoint ({reason}): delete it and download it '
        'again, or correct the path'
    )


def load_web_files_as_weights_only() -> None:
    """Keep ``weights_only`` on for checkpoints that mmengine fetches from the web.

    Symptom: a checkpoint given by an http address runs the code in it, while a local file does not:
    mmengine calls ``torch.hub.load_state_dict_from_url``, whose ``weights_only`` is off.
    """
    CheckpointLoader.register_scheme(('http://', 'https://'), _load_web_file, force=True)


def _load_web_file(filename: str, map_location: object = None, **_: object) -> dict:
    """Read a checkpoint at an address, in the signature that mmengine calls."""
    return load_state_dict_file(filename, map_location)
