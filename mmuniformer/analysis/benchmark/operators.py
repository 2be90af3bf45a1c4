"""What the time of a call is made of, by PyTorch's own profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

DENSE, ATTENTION, DEPTHWISE, GELU, NORMS, REST = KINDS = (
    'dense', 'attention', 'depthwise', 'GELU', 'norms', 'rest',
)  # fmt: skip
"""Linear layers and convolutions; products among tokens with their softmax; convolutions of single
channels; and what needs no product: sums, copies, conversions are the rest."""
NAMES = {
    REST: ('upsample',),
    ATTENTION: ('attention', 'bmm', 'softmax'),
    GELU: ('gelu',),
    NORMS: ('norm',),
    DENSE: ('conv', 'mm', 'linear'),
}


def kind_of(name: str, shapes: Sequence[Sequence[int]]) -> str:
    """Return the kind of an operator of PyTorch.

    Args:
        name: Like ``aten::mkldnn_convolution``.
        shapes: Of its arguments; empty for those that are no tensors.
    """
    operator = name.removeprefix('aten::')
    kind = next((k for k, parts in NAMES.items() if any(p in operator for p in parts)), REST)
    if kind == DENSE and 'conv' in operator:
        # Forward takes input and weight, backward the gradient before them.
        weight = shapes[2 if 'backward' in operator else 1]
        if len(weight) == 4 and weight[1] == 1 < weight[0]:
            return DEPTHWISE
    return kind


def seconds_by_kind(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Run a call twice, the second time under the profiler; return its operators' own time."""
    on_gpu = device.type == 'cuda'
    activity = ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU
    call()
    with profile(activities={ProfilerActivity.CPU, activity}, record_shapes=True) as profiled:
        call()
    found = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages(group_by_input_shape=True):
        if event.key.startswith('aten::'):
            time = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            found[kind_of(event.key, event.input_shapes)] += time / 1e6
    return found
