"""Which checkpoints of a run are there, which of them is whole, and which one is the last."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmuniformer.compat import load_file
from mmuniformer.errors import CheckpointError
from mmuniformer.models.weights.files import PART, UNREADABLE, load_state_dict_file, whole_file

POINTER = 'last_checkpoint'
"""The file in a work dir that names the run's last checkpoint."""

INTERRUPTED = 'interrupted.pth'
"""What a run that was told to end saves; the next such run replaces it."""


def point_to(work_dir: str | Path, checkpoint: str | Path) -> None:
    """Name a run's last checkpoint, on which ``--resume`` goes on."""
    with whole_file(Path(work_dir, POINTER)) as part:
        part.write_text(str(checkpoint))


def named_last(work_dir: str | Path) -> Path | None:
    """Return the checkpoint that a run names as its last, there or not; None if it names none."""
    try:
        named = Path(work_dir, POINTER).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(named) if named else None


def remove_leftovers(folder: str | Path) -> None:
    """Remove what runs that were killed while they saved have left in a folder."""
    for part in Path(folder).glob(f'{PART}*.pth'):
        part.unlink(missing_ok=True)


def resumable(work_dir: str | Path) -> Path | None:
    """Return the last checkpoint of a run that is whole; None before the first one.

    It is the one that the run names as its last. If that is damaged or missing, or none is named,
    it is the one of most iterations among the others, and a line in the log says so.

    Raises:
        CheckpointError: There are checkpoints, and none is whole.
    """
    named, reasons = named_last(work_dir), []
    for path in candidates(Path(work_dir), named):
        try:
            read_state(path)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if path != named:
            missing = [f'{Path(work_dir, POINTER)} names none'] if named is None else []
            if named is not None and not named.is_file():
                missing = [f'{named}, which {Path(work_dir, POINTER)} names, does not exist']
            because = '; '.join((missing + reasons)[:3])
            print_log(f'{because}. Resuming from {path} instead', 'current', logging.WARNING)
        return path
    if reasons:
        raise CheckpointError(
            f'{reasons[0]}. No other checkpoint in {work_dir} can be resumed from: train without '
            '--resume in another --work-dir'
        )
    return None


def whole_beside(path: Path) -> Path | None:
    """Return the last whole checkpoint of a training run beside a damaged one, or None."""
    for other in candidates(path.parent, None):
        if other != path:
            with contextlib.suppress(CheckpointError):
                read_state(other)
                return other
    return None


def candidates(work_dir: Path, named: Path | None) -> Iterator[Path]:
    """Yield the checkpoints of a run, the last first; the named one before all."""
    if named is not None and named.is_file():
        yield named
    folders = {work_dir, *([named.parent] if named is not None else [])}
    files = {path for folder in folders for path in folder.glob('*.pth') if path != named}
    others = [path for path in files if not path.name.startswith((PART, 'best_'))]
    yield from sorted(others, key=lambda path: (iterations(path), path.name), reverse=True)


def iterations(path: Path) -> int:
    """Return the iterations that a file says it has seen, its tensors unread; -1 if it has none."""
    try:
        return int(load_file(str(path), 'cpu', mmap=True)['meta']['iter'])
    except UNREADABLE:
        return -1


def read_state(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of a training run holds.

    Raises:
        CheckpointError: It is damaged, or holds weights alone.
    """
    checkpoint = load_state_dict_file(path)
    if 'message_hub' not in checkpoint or 'optimizer' not in checkpoint:
        raise CheckpointError(f'{path} holds weights and no state of a training run')
    meta = checkpoint.get('meta', {})
    if not isinstance(meta, Mapping):
        raise CheckpointError(f'{path}: meta is {meta!r}, not a mapping with epoch and iter')
    for key in ('epoch', 'iter'):
        if not isinstance(meta.get(key, 0), int):
            raise CheckpointError(f'{path}: meta[{key!r}] is {meta[key]!r}, not a count')
    return checkpoint
