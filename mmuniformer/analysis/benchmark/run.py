"""Measuring the cases of a benchmark: all in one run, in turn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.baselines import baseline_cases
from mmuniformer.analysis.benchmark.cases import (
    INFERENCE,
    TRAINING,
    Case,
    Profile,
    Settings,
    Shape,
    compile_errors,
    quiet,
)
from mmuniformer.analysis.benchmark.report import REFERENCE, Row, compare_with_plain, ratio
from mmuniformer.analysis.benchmark.scores import evaluate
from mmuniformer.analysis.complexity import count_model, count_params
from mmuniformer.analysis.layouts import Layout
from mmuniformer.analysis.metafile import stated_accuracy

PASSES = {INFERENCE: 1, TRAINING: 3}
"""Multiply-adds over those of forward: backward has two products for each of forward."""
MEGABYTE = 1 << 20
SCORES = ('mIoU', 'mAcc', 'aAcc')


def make_cases(
    cfg: Config, settings: Settings, layouts: Sequence[Layout], profiles: Sequence[Profile],
    against: bool,
) -> tuple[list[Case], list[Row]]:  # fmt: skip
    """Return a case for each layout and profile of a config.

    With ``against`` the baselines follow, and rows for those that are not installed.
    """
    cases = []
    for layout, profile in itertools.product(layouts, profiles):
        stated = stated_accuracy(cfg.filename, layout.name) if settings.task != 'backbone' else None
        changed = profile.in_config(layout.in_config(cfg))
        cases.append(Case(profile.name, changed, settings, layout.name, profile, stated))
    baselines, absent = baseline_cases(cfg, settings) if against else ([], [])
    return cases + baselines, absent


def measure_cases(
    cases: Sequence[Case], settings: Settings, console: Console, scored: bool = False
) -> tuple[list[Row], dict[str, float]]:
    """Measure time, memory, FLOPs and difference from plain of each case at each size.

    Args:
        cases: What to measure.
        settings: How; those of the cases.
        console: Where progress is shown.
        scored: Whether segmentors of ours are scored on their config's test data.

    Returns:
        A row for each size and case, and the multiply-adds a second of matrix products by type.
    """
    device = torch.device(settings.device)
    timings, rates, differences = {}, {}, {}
    rows = []
    with quiet():
        models = [case.build() for case in cases]
        scores = [
            evaluate(model, case.cfg, console, f'scores, {case.layout} {case.name}')
            if scored and case.profile
            else {}
            for case, model in zip(cases, models, strict=True)
        ]
        if settings.repeats:
            with compile_errors():
                differences = compare(cases, models, settings.shapes)
                timings, rates = time_cases(cases, models, settings, console)
        places = list(itertools.product(settings.shapes, range(len(cases))))
        for shape, index in track(places, 'memory and FLOPs', console=console):
            case, model = cases[index], models[index]
            if device.type == 'cuda':
                memory = measure.peak_memory_on_gpu(case.call(model, shape), device)
            else:
                memory = measure.peak_memory_on_cpu(case.prepare, shape)
            params, flops = count(case, shape)
            row = Row(
                profile=case.name,
                layout=case.layout,
                size=f'{settings.batch_size} x {shape[0]} x {shape[1]}',
                peak_mb=memory.growth / MEGABYTE,
                whole_mb=ratio(memory.whole, MEGABYTE),
                gflops=flops / 1e9,
                params_m=params / 1e6,
                difference=differences.get((index, shape)),
                published=case.published,
                **{name: scores[index].get(name) for name in SCORES},
            )
            if settings.repeats:
                set_times(row, timings[index, shape], settings, shape)
                # A detector trains on fewer boxes than FLOPs are counted for.
                if (settings.task, settings.mode) != ('det', TRAINING):
                    work = PASSES[settings.mode] * flops * settings.batch_size
                    row.times_floor = row.ms / 1e3 / (work / rates[case.dtype])
            if settings.operators:
                kinds = measure.seconds_by_kind(case.call(model, shape), device)
                for kind, seconds in kinds.items():
                    setattr(row, f'{kind}_ms', seconds * 1e3)
            rows.append(row)
    compare_with_plain(rows)
    return rows, rates


def set_times(row: Row, timing: measure.Timing, settings: Settings, shape: Shape) -> None:
    """Set the figures of a row that follow from its times."""
    row.ms, row.fastest_ms, row.slowest_ms = (seconds * 1e3 for seconds in timing)
    row.spread = (timing.slowest - timing.fastest) / timing.median
    row.images_per_second = settings.batch_size / timing.median
    row.ns_per_pixel = timing.median * 1e9 / (settings.batch_size * shape[0] * shape[1])


def count(case: Case, shape: Shape) -> tuple[int, int]:
    """Return parameters and multiply-adds of one image."""
    # On the CPU first: not all networks can be built without memory.
    settings = replace(case.settings, device='cpu', mode=INFERENCE, checkpoint=None)
    model = replace(case, profile=None, settings=settings).build().to('meta')
    whole = SimpleNamespace(backbone=model) if settings.task == 'backbone' else model
    channels = case.cfg.model.backbone.get('in_channels', 3)
    parts = count_model(whole, torch.empty(1, channels, *shape, device='meta'))
    return count_params(model), sum(part.flops for part in parts)


def time_cases(
    cases: Sequence[Case], models: Sequence[nn.Module], settings: Settings, console: Console
) -> tuple[dict[Any, measure.Timing], dict[str, float]]:
    """Time every case at every size, and a matrix product in their types, all in turn.

    Returns:
        Timings by index of the case and shape; multiply-adds a second of the products by type.
    """
    device = torch.device(settings.device)
    calls, work = {}, {}
    for name in dict.fromkeys(case.dtype for case in cases):
        calls[name], work[name] = measure.matrix_product(device, getattr(torch, name))
    for index, shape in itertools.product(range(len(cases)), settings.shapes):
        calls[index, shape] = cases[index].call(models[index], shape)
    timings = measure.interleaved(calls, settings.repeats, device, console)
    return timings, {name: work[name] / timings[name].median for name in work}


def compare(
    cases: Sequence[Case], models: Sequence[nn.Module], shapes: Sequence[Shape]
) -> dict[Any, float | None]:
    """Return how far outputs are from the plain profile's in the same layout, where it is run."""
    plain = {case.layout: i for i, case in enumerate(cases) if case.name == REFERENCE}
    found = {}
    for shape in shapes:
        wanted = {layout: cases[i].outputs(models[i], shape) for layout, i in plain.items()}
        for index, case in enumerate(cases):
            if case.profile and case.layout in wanted:
                outputs = case.outputs(models[index], shape)
                found[index, shape] = difference(outputs, wanted[case.layout])
    return found


def difference(outputs: Any, wanted: Any) -> float | None:
    """Return the largest difference of any element over the largest wanted one; None if that is 0.

    Not a number where an output is not.
    """
    ours, theirs = flatten(outputs), flatten(wanted)
    # Not Python's max, which passes over NaN.
    found = torch.stack([(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]).max()
    return ratio(float(found), max(float(b.abs().max()) for b in theirs))


def flatten(outputs: Any) -> list[Tensor]:
    """Return the tensors in nested tuples and lists as float64."""
    if isinstance(outputs, Tensor):
        return [outputs.double()]
    return [tensor for output in outputs for tensor in flatten(output)]
