"""The safetensors format: tensors by name, and texts by name as meta data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from mmuniformer.errors import CheckpointError

SUFFIX = '.safetensors'
META = ('mmuniformer', 'dataset_meta')
"""Entries of a checkpoint's meta data that such a file carries, each as JSON."""


def read(path: Path, map_location: str | torch.device = 'cpu') -> dict[str, Any]:
    """Return the tensors of a file as a checkpoint: ``state_dict`` and ``meta``.

    Raises:
        CheckpointError: The package safetensors is absent.
        ValueError: It is no such file, or ends early.
    """
    library = required(path)
    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        with library.safe_open(path, 'pt', device=device) as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            noted = file.metadata() or {}
        meta = {key: json.loads(noted[key], object_hook=numbered) for key in META if key in noted}
    except library.SafetensorError as error:
        raise ValueError(str(error)) from error
    return {'meta': meta, 'state_dict': state}


def write(path: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a state dict, and of the meta data what other programs may read as text.

    Raises:
        CheckpointError: The package safetensors is absent.
    """
    required(path)
    from safetensors.torch import save_file

    # The format refuses tensors that share memory.
    alone = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    # Arrays (the keypoint tables of datasets) become lists.
    noted = {key: json.dumps(meta[key], default=list) for key in META if key in meta}
    save_file(alone, path, {'format': 'pt', **noted})


def numbered(table: dict[str, Any]) -> dict[str | int, Any]:
    """Return a table with whole numbers as keys again, of which JSON makes texts."""
    return {int(key) if key.isdecimal() else key: value for key, value in table.items()}


def required(path: Path) -> ModuleType:
    """Import the package.

    Raises:
        CheckpointError: It is absent.
    """
    try:
        import safetensors
    except ImportError as error:
        raise CheckpointError(
            f'{path}: the package safetensors is needed for such files: pip install safetensors'
        ) from error
    return safetensors
