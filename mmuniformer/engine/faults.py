"""What ends a run from outside, said in one message: disks, processes, files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import BaseLoop
from torch import nn

from mmuniformer.engine.checkpoint import unwrapped
from mmuniformer.engine.saving import named_last
from mmuniformer.errors import UserError
from mmuniformer.models.base import find_backbone
from mmuniformer.models.weights.released import OUTPUT_NORMS

LOST_PEER = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'NCCL error')


@contextmanager
def explained(runner: Any) -> Iterator[None]:
    """Turn errors of the machine inside into a ``UserError`` that names the thing.

    Raises:
        UserError: With the way out; other errors stay as they are.
    """
    try:
        yield
    except UserError as error:
        raise from_worker(error) from error.__cause__
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        what = f'{error.filename or runner.work_dir}: {error.strerror or error}'
        raise UserError(f'{what}{way_on(runner)}') from error
    except RuntimeError as error:
        if text := explanation(str(error), runner.model):
            raise UserError(f'{text}{way_on(runner)}') from error
        raise


def from_worker(error: UserError) -> UserError:
    """Return an error that a process that loads data reported, without that process's traceback."""
    text = str(error.args[0]) if error.args else ''
    name = f'{type(error).__module__}.{type(error).__qualname__}: '
    if text.startswith('Caught ') and name in text:
        return type(error)(text.rpartition(name)[2].strip())
    return error


def explanation(text: str, model: nn.Module) -> str | None:
    """Say what a ``RuntimeError`` of torch's loader or process group means; None for others."""
    if found := re.search(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)', text):
        signal = re.search(r'killed by signal: (\w+)', text)
        how = f' by {signal[1]}' if signal else ''
        return (
            f'Process {found[1]}, which loaded data, was killed{how}, most often for lack of '
            'memory or of /dev/shm: lower num_workers or batch_size of the dataloader'
        )
    if indices := re.search(r'did not receive grad for rank \d+: ([\d ]+)', text):
        names = [name for name, each in unwrapped(model).named_parameters() if each.requires_grad]
        return unused_message([names[int(index)] for index in indices[1].split()], model)
    if any(sign in text for sign in LOST_PEER):
        return 'Another process of this run has ended: see its message above, or in its log'
    return None


def unused_message(names: list[str], model: nn.Module) -> str:
    """Say what to do about parameters that no loss depends on, for which processes would wait."""
    prefix, backbone = find_backbone(unwrapped(model))
    listed = ', '.join(names[:6]) + ', ...' * (len(names) > 6)
    norms = {name.removeprefix(prefix).partition('.')[0] for name in names}
    if backbone is not None and norms <= set(OUTPUT_NORMS):
        used = tuple(i for i in backbone.out_indices if f'norm{i + 1}' not in norms)
        return (
            f'{listed} get no gradient: the neck or head leaves these outputs of the backbone '
            f'unused. Set model.backbone.out_indices={used} and the neck to these stages, or '
            'find_unused_parameters=True, which is slower'
        )
    return (
        f'{listed} get no gradient, and the processes would wait for it: freeze or remove what '
        'the loss does not use, or set find_unused_parameters=True, which is slower'
    )


def way_on(runner: Any) -> str:
    """Say where a training can go on from; nothing of a test."""
    if not isinstance(runner._train_loop, BaseLoop):
        return ''
    last = named_last(runner.work_dir)
    if last is None or not last.is_file():
        return '. No checkpoint was written yet'
    return f'. The last good checkpoint is {last}: train again with --resume'
