"""Measuring a call: time in turn with others, peak memory, operators; and on what machine."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib.metadata
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch.profiler import ProfilerActivity, profile

DISTRIBUTIONS = (
    'mmuniformer', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpose', 'mmpretrain',
    'mmaction2',
)  # fmt: skip
KINDS = ('dense', 'attention', 'depthwise', 'gelu', 'norms', 'rest')
"""Kinds of operators: linear layers and convolutions; products among tokens with their softmax;
convolutions of single channels; and what has no product: sums, copies, conversions are the rest."""
OPERATORS = {
    'rest': ('upsample',),
    'attention': ('attention', 'bmm', 'softmax'),
    'gelu': ('gelu',),
    'norms': ('norm',),
    'dense': ('conv', 'mm', 'linear'),
}
"""Parts of the names that tell them, the first that fits."""

SIDES = {'cpu': 2048, 'cuda': 8192}
"""Of the matrices whose product is a machine's pace."""


def interleaved(
    calls: Mapping[Hashable, Callable[[], Any]], repeats: int, device: torch.device,
    console: Console | None = None,
) -> dict[Hashable, list[float]]:  # fmt: skip
    """Return the seconds of calls in turn, after an untimed round: the machine's pace is shared."""
    seconds = {name: [] for name in calls}
    for repeat in track(range(repeats + 1), 'time', console=console, disable=console is None):
        for name, call in calls.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def products(
    device: torch.device, dtype: torch.dtype, layers: Iterable[tuple[int, int, int, int]]
) -> dict[str, tuple[Callable[[], Any], int]]:
    """Return products that run at the machine's pace, and their multiply-adds, by what they are.

    Args:
        device: Where they run.
        dtype: Type of their operands.
        layers: Height, width, channels in and out of 1x1 convolutions. They run in another
            library than the square matrix product before them: neither is the faster everywhere.
    """

    def random(*shape: int) -> torch.Tensor:
        x = torch.rand(shape, device=device).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x

    side = SIDES[device.type]
    square = functools.partial(torch.mm, random(side, side), random(side, side))
    calls = {f'{side} x {side} matrices': (square, side**3)}
    for height, width, inner, outer in layers:
        call = functools.partial(
            torch.conv2d, random(1, inner, height, width), random(outer, inner, 1, 1)
        )
        name = f'1x1 convolution, {inner} to {outer} channels'
        calls[name] = call, height * width * inner * outer
    return calls


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak_memory_on_gpu(call: Callable[[], Any], device: torch.device) -> tuple[int, None]:
    """Return how many bytes more the allocator held, at most, during a call than before."""
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, None


def peak_memory_on_cpu(prepare: Callable[..., Callable[[], Any]], *args: Any) -> tuple[int, int]:
    """Return how many bytes a fresh process grows by during a call that ``prepare`` returns there.

    And its peak. Where the system cannot forget the peak of ``prepare`` (other than Linux), the
    growth is 0 if the call stays below it.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
        return process.submit(prepare_and_measure, prepare, *args).result()


def prepare_and_measure(prepare: Callable[..., Callable[[], Any]], *args: Any) -> tuple[int, int]:
    """Do what ``peak_memory_on_cpu`` says in this process."""
    call = prepare(*args)
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc's alone: returns what was freed
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew from here
    before = peak_resident_set()
    call()
    peak = peak_resident_set()
    return peak - before, peak


def peak_resident_set() -> int:
    """Return the most bytes that this process has held in memory."""
    # Not getrusage where there is a choice: its peak goes back to before the process's own start.
    with contextlib.suppress(OSError):
        status = Path('/proc/self/status').read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if 'VmHWM' in line)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak << 10


def kind_of(name: str, shapes: Sequence[Sequence[int]]) -> str:
    """Return the kind of an operator like ``aten::addmm`` from it and its arguments' shapes."""
    name = name.partition('::')[2]
    kind = next((k for k, parts in OPERATORS.items() if any(p in name for p in parts)), 'rest')
    if kind == 'dense' and 'conv' in name:
        # Forward takes input and weight, backward the gradient before them.
        weight = shapes[2 if 'backward' in name else 1]
        if len(weight) in (4, 5) and weight[1] == 1 < weight[0]:
            return 'depthwise'
    return kind


def seconds_by_kind(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Return the own time of a call's operators, on its second run."""
    on_gpu = device.type == 'cuda'
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    call()
    with profile(activities=activities, record_shapes=True) as profiled:
        call()
    found = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages(group_by_input_shape=True):
        if event.key.startswith(('aten::', 'mkldnn::')):
            # Of PyTorch below 2.4 cuda, since then device.
            on_device = 'device' if hasattr(event, 'self_device_time_total') else 'cuda'
            spent = getattr(event, f'self_{on_device if on_gpu else "cpu"}_time_total')
            found[kind_of(event.key, event.input_shapes)] += spent / 1e6
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what a measurement was made on, for the file that holds it."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    installed['torch'] = torch.__version__  # names the build, too
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        name = next(line.split(':', 1)[1].strip() for line in lines if 'model name' in line)
    # The instructions that PyTorch uses: without AVX512 bfloat16 is slower than float32.
    name += f', {torch.backends.cpu.get_cpu_capability()}'
    return {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else name,
        'threads': torch.get_num_threads(),
        'system': platform.platform(),
        'versions': {name: installed[name] for name in DISTRIBUTIONS if name in installed},
    }
