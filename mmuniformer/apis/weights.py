"""Released files by name: fetched, and compared with what was published."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmuniformer.errors import CheckpointError, explain_write_errors, refuse_existing
from mmuniformer.models.weights import catalog
from mmuniformer.models.weights.catalog import ReleasedFile, find_released
from mmuniformer.models.weights.download import Identity, download, named_hash, sha256
from mmuniformer.models.weights.files import fetch, load_state_dict_file, whole_file
from mmuniformer.models.weights.released import backbone_state, head_dim_by_name, preset_name


def fetch_released(name: str, folder: Path | None = None, force: bool = False) -> Path:
    """Return where a released file is, downloading it if need be.

    Args:
        name: The file's name, or what it is the weights of (see ``find_released``).
        folder: Where to copy it to.
        force: Replace a file there.

    Raises:
        CheckpointError: There is no such file, or no home gives it.
        UserError: It cannot be copied there.
    """
    file = find_released(name)
    if folder is None:
        return download(file.homes[0])
    target = folder / file.name
    refuse_existing(target, force)
    source = download(file.homes[0])
    with explain_write_errors(target), whole_file(target) as part:
        shutil.copyfile(source, part)
    return target


def verify(source: str) -> dict[str, str]:
    """Compare a file with what was published, then read it.

    Returns:
        What was found, as text by subject, for a table.

    Raises:
        CheckpointError: It is damaged, or holds no weights.
    """
    path = fetch(source)
    digest = sha256(path)
    published = published_as(path.name, digest)
    stated = published.sha256 if published else named_hash(path.name)
    try:
        Identity(stated, published.size if published else None).check(path)
    except OSError as error:
        raise CheckpointError(f'{source} is not what was published: {error}') from error
    backbone = backbone_state(load_state_dict_file(path))
    head_dim = published.head_dim if published else head_dim_by_name(path.name)
    compared = 'equal to what was published' if stated else 'none was published to compare with'
    return {
        'file': f'{source}, {path.stat().st_size:,} bytes',
        'sha256': f'{digest} ({compared})',
        'released as': f'{published.name} ({published.kind})' if published else 'not known',
        'network': f'{preset_name(backbone)}, {len(backbone)} tensors',
        'head_dim': str(head_dim or 'not known'),
    }


def published_as(name: str, digest: str) -> ReleasedFile | None:
    """Return the released file that has this hash, else this name, if any."""
    same = [f for f in catalog.RELEASED_FILES if f.sha256 and digest.startswith(f.sha256)]
    same += [f for f in catalog.RELEASED_FILES if f.name == name]
    return same[0] if same else None
