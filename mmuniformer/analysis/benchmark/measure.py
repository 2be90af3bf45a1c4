"""Measuring: time by interleaved repeats, peak memory in a fresh process, what machine it was."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

MEGABYTE = 1 << 20
DISTRIBUTIONS = ('mmuniformer', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpose')


class Timing(NamedTuple):
    """Seconds a call takes."""

    median: float
    fastest: float
    slowest: float

    @property
    def spread(self) -> float:
        """Slowest less fastest, as a share of the median."""
        return (self.slowest - self.fastest) / self.median


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    on_call: Callable[[], None] = lambda: None,
) -> dict[str, Timing]:
    """Time calls in turn, so that a change of the machine's pace meets all of them alike.

    Args:
        calls: What to time, by name. Each runs once more beforehand, untimed.
        repeats: How often each is timed, from 1 up.
        device: Where the work is done; on a GPU its end is waited for.
        on_call: Hears of each call that is done, ``(repeats + 1) * len(calls)`` times.
    """
    seconds = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
            on_call()
    return {
        name: Timing(statistics.median(each), min(each), max(each))
        for name, each in seconds.items()
    }


def matrix_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Any], int]:
    """Return a square matrix product, which runs at the machine's pace, and its multiply-adds."""
    side = 8192 if device.type == 'cuda' else 2048
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b, side**3


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


class Memory(NamedTuple):
    """Bytes that a call needs beyond what was held before it, and the most of the whole process."""

    growth: int
    whole: int | None
    """None where more is held than the call's own model and inputs."""


def peak_memory_on_gpu(call: Callable[[], Any], device: torch.device) -> Memory:
    """Return how much more the allocator held, at most, during a call than before."""
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    synchronize(device)
    return Memory(torch.cuda.max_memory_allocated(device) - before, None)


def peak_memory_on_cpu(prepare: Callable[..., Callable[[], Any]], *args: Any) -> Memory:
    """Return how far the resident set of a fresh process grows during a call, and its peak.

    Args:
        prepare: Function of a module; with ``args`` it returns the call. Its own peak, like that
            of building a model, is not counted where the system can forget it (Linux).
        args: Picklable.
    """
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(_prepare_and_measure, prepare, args).result()


def _prepare_and_measure(
    prepare: Callable[..., Callable[[], Any]], args: tuple[Any, ...]
) -> Memory:
    call = prepare(*args)
    _release_freed_memory()
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew from here
    before = _peak_resident_set()
    call()
    peak = _peak_resident_set()
    return Memory(peak - before, peak)


def _release_freed_memory() -> None:
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)


def _peak_resident_set() -> int:
    # Not getrusage where there is a choice: its peak goes back to before the process's own start.
    try:
        status = Path('/proc/self/status').read_text()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == 'darwin' else peak * 1024
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if 'VmHWM' in line)


def machine(device: torch.device) -> dict[str, Any]:
    """Tell what a measurement was made on, for the file that holds it."""
    return {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else _processor(),
        'threads': torch.get_num_threads(),
        'cores': os.cpu_count(),
        'system': platform.platform(),
        'python': platform.python_version(),
        'cuda': torch.version.cuda,
        'versions': {name: _version(name) for name in DISTRIBUTIONS},
    }


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(':', 1)[1].strip() for line in lines if 'model name' in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
