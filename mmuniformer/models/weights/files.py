"""Read weight files: from a path or an address, without running code that they may hold."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor

from mmuniformer.compat import load_file
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights import catalog, tensors
from mmuniformer.models.weights.download import NOT_WEIGHTS, download
from mmuniformer.models.weights.released import state_dict_of

WEB = ('https://', 'http://', catalog.HUB_SCHEME)
"""How addresses start that a checkpoint may have."""

UNREADABLE = (
    *(pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, AssertionError),
    *(AttributeError, LookupError, TypeError, ValueError, MemoryError, OverflowError),
)
"""What torch raises on files that are no checkpoints or end early."""

PART = '.part-'
"""How the name of a file starts that is not whole yet."""

REFUSALS = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
"""How Windows and some network file systems refuse to wait for a folder."""


def load_state_dict_file(
    source: str | Path, map_location: str | torch.device = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint without running any code in it.

    Args:
        source: Path, URL or ``hf://OWNER/REPO/FILE``; ``.safetensors``, or what torch saves.
        map_location: As in ``torch.load``.

    Returns:
        What the file holds: nested or bare weights, often with meta data.

    Raises:
        CheckpointError: It is missing, truncated, no checkpoint, or holds code or no tensor.
    """
    source = str(source)
    path = fetch(source)
    try:
        if path.suffix == tensors.SUFFIX:
            raw = tensors.read(path, map_location)
        else:
            raw = load_file(path, map_location)
    except CheckpointError:
        raise
    except UNREADABLE as error:
        raise CheckpointError(unreadable_message(source, path, str(error))) from error
    if not isinstance(raw, Mapping) or not state_dict_of(raw):
        held = f'keys {list(raw)[:8]}' if isinstance(raw, Mapping) else f'a {type(raw).__name__}'
        raise CheckpointError(
            f'{source} holds no weights, but {held}: weights should be tensors by name, bare or '
            'under `state_dict` or `model`'
        )
    check_tensors(state_dict_of(raw), source)
    return raw


def check_tensors(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that no network can use.

    Raises:
        CheckpointError: Names the first tensor that holds NaN or Inf, is sparse or has no values.
    """
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_quantized:
            kind = 'without values, on the meta device' if tensor.is_meta else (
                'quantized' if tensor.is_quantized else f'sparse ({tensor.layout})'
            )  # fmt: skip
            raise CheckpointError(
                f'{source}: {name} is a tensor {kind}, and would load as nothing: save dense '
                'tensors, as model.state_dict() gives them'
            )
    spoiled = [
        name
        for name, tensor in state.items()
        # A mask of attention holds -Inf where nothing is looked at.
        if tensor.is_floating_point() and not name.endswith('mask') and not tensor.isfinite().all()
    ]
    if spoiled:
        more = f' and {len(spoiled) - 1} more tensors' if len(spoiled) > 1 else ''
        raise CheckpointError(
            f'{source}: {spoiled[0]}{more} hold NaN or Inf: the training that wrote the file had '
            'diverged, or the file is damaged. Use an earlier checkpoint'
        )


def fetch(source: str) -> Path:
    """Return where a file is on this machine, downloading it if need be."""
    if source.startswith(WEB):
        return download(source)
    if '://' in source:
        raise CheckpointError(
            f'checkpoint {source}: addresses start with https://, http:// or hf:// (of the '
            'Hugging Face Hub); else give a path'
        )
    path = Path(source).expanduser()
    if not path.is_file():
        kind = 'is a folder, not a file' if path.is_dir() else 'does not exist'
        way_out = 'correct the path'
        if any(path.name == file.name for file in catalog.RELEASED_FILES):
            way_out += f', or fetch the released file with `mmuniformer weights fetch {path.name}`'
        raise CheckpointError(f'checkpoint {source} {kind}: {way_out}')
    return path


@contextlib.contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a name to write to, which becomes the file's if all goes well; else nothing is left.

    If ``durable``, what has the file's name is on the disk, even if the machine stops right after.
    Waiting for this takes milliseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        yield part
        if durable:
            sync(part)
        os.replace(part, path)
        if durable:
            sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        handle = os.open(path, os.O_RDWR if os.name == 'nt' else os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in REFUSALS or not path.is_dir():
            raise


def part_of(path: Path) -> Path:
    """Return a name beside a file, of its suffix, for what will be renamed once it is whole."""
    return path.with_name(f'{PART}{uuid.uuid4().hex}{path.suffix}')


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


def load_more_kinds_of_checkpoints() -> None:
    """Let mmengine load what our commands do: hub files, safetensors, and no code from the web.

    Symptom: a checkpoint given by an http address runs the code in it, while a local file does not:
    mmengine calls ``torch.hub.load_state_dict_from_url``, whose ``weights_only`` is off.
    """
    kinds = [*WEB, rf'.*\{tensors.SUFFIX}$']  # mmengine takes these as regular expressions
    CheckpointLoader.register_scheme(kinds, load_from_mmuniformer, force=True)
    mmengine_checkpoint.load_from_http = load_from_mmuniformer  # torchvision:// and the like


def load_from_mmuniformer(filename: str, map_location: object = None, **_: object) -> dict:
    """Load for mmengine, which logs the end of this function's name as the kind of source."""
    return load_state_dict_file(filename, map_location)
