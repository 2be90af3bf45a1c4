"""Measuring the cases of a benchmark: all in one run, in turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.cases import (
    Case,
    Settings,
    build,
    make_call,
    make_outputs,
    prepare_call,
    quiet,
)
from mmuniformer.analysis.benchmark.operators import seconds_by_kind
from mmuniformer.analysis.benchmark.profiles import INFERENCE, TRAINING
from mmuniformer.analysis.benchmark.report import REFERENCE, Row
from mmuniformer.analysis.complexity import complexity, count_model, count_params
from mmuniformer.errors import UserError

Tracker = Callable[[str, int], Callable[[], None]]
"""Given a name and a number of steps, returns what to call after each step."""
Scorer = Callable[[Case, nn.Module, Tracker], Mapping[str, float]]
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


def no_scores(case: Case, model: nn.Module, track: Tracker) -> Mapping[str, float]:
    """Score nothing."""
    return {}


def measure_cases(
    cases: Sequence[Case],
    settings: Settings,
    console: Console,
    score: Scorer = no_scores,
) -> tuple[list[Row], dict[str, float]]:
    """Measure time, memory, FLOPs and agreement of each case at each size.

    Args:
        cases: What to measure.
        settings: How.
        console: Where progress is shown.
        score: Returns a model's scores.

    Returns:
        A row for each case and size, and the multiply-adds a second of matrix products by type.
    """
    device = torch.device(settings.device)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with quiet(), Progress(*columns, console=console) as progress:

        def track(name: str, total: int) -> Callable[[], None]:
            task = progress.add_task(name, total=total)
            return lambda: progress.advance(task)

        models = [build(case, settings) for case in cases]
        scores = [score(case, model, track) for case, model in zip(cases, models, strict=True)]
        timings, rates, differences = {}, {}, {}
        if settings.repeats:
            with explained():
                differences = compare(cases, models, settings, track)
                timings, rates = time_cases(cases, models, settings, track)
        places = list(itertools.product(settings.shapes, range(len(cases))))
        done = track('memory and FLOPs', len(places))
        # A detector trains on fewer boxes than FLOPs are counted for.
        has_floor = (settings.task, settings.mode) != ('det', TRAINING)
        rows = []
        for shape, index in places:
            case = cases[index]
            if device.type == 'cuda':
                call = make_call(case, models[index], settings, shape)
                memory = measure.peak_memory_on_gpu(call, device)
            else:
                memory = measure.peak_memory_on_cpu(prepare_call, case, settings, shape)
            params, flops = count(case, settings, shape)
            operators = {}
            if settings.operators:
                call = make_call(case, models[index], settings, shape)
                operators = seconds_by_kind(call, device)
            rows.append(
                Row(
                    case.name,
                    case.layout,
                    shape,
                    settings.batch_size,
                    settings.mode,
                    params,
                    flops,
                    memory,
                    timings.get((index, shape)),
                    rates.get(type_of(case)) if has_floor else None,
                    differences.get((index, shape)),
                    scores[index],
                    operators=operators,
                    published=case.published,
                )
            )
            done()
    return rows, rates


@contextmanager
def explained() -> Iterator[None]:
    """Say what a failure of ``torch.compile`` means.

    Raises:
        UserError: It failed.
    """
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'torch.compile failed: {reason}. It needs a C++ compiler; else leave the profile '
            'compile out of --profiles'
        ) from error


def count(case: Case, settings: Settings, shape: tuple[int, int]) -> tuple[int, int]:
    """Return parameters and multiply-adds of one image."""
    bare = settings.task == 'backbone'
    if case.profile:
        counted = complexity(
            Config({'model': case.cfg.model.backbone}) if bare else case.cfg, shape
        )
        return counted.params, counted.flops
    # Not all networks can be built without memory, as ``complexity`` does it.
    model = build(case, replace(settings, device='cpu', mode=INFERENCE)).to('meta')
    whole = SimpleNamespace(backbone=model) if bare else model
    parts = tuple(count_model(whole, torch.empty(1, 3, *shape, device='meta')))
    return count_params(model), sum(part.flops for part in parts)


def type_of(case: Case) -> str:
    """Return the name of the type that a case computes in."""
    return 'bfloat16' if case.profile and case.profile.bfloat16 else 'float32'


def time_cases(
    cases: Sequence[Case], models: Sequence[nn.Module], settings: Settings, track: Tracker
) -> tuple[dict[Any, measure.Timing], dict[str, float]]:
    """Time every case at every size, and a matrix product in their types, all in turn.

    Returns:
        Timings by index of the case and shape; multiply-adds a second of the products by type.
    """
    device = torch.device(settings.device)
    calls, work = {}, {}
    for name in dict.fromkeys(map(type_of, cases)):
        calls[name], work[name] = measure.matrix_product(device, DTYPES[name])
    for index, shape in itertools.product(range(len(cases)), settings.shapes):
        calls[index, shape] = make_call(cases[index], models[index], settings, shape)
    done = track('time', (settings.repeats + 1) * len(calls))
    timings = measure.interleaved(calls, settings.repeats, device, done)
    return timings, {name: work[name] / timings[name].median for name in work}


def compare(
    cases: Sequence[Case], models: Sequence[nn.Module], settings: Settings, track: Tracker
) -> dict[Any, tuple[float, float]]:
    """Return how far outputs are from the plain profile's in the same layout, where it is run."""
    plain = {case.layout: index for index, case in enumerate(cases) if case.name == REFERENCE}
    compared = [i for i, case in enumerate(cases) if case.profile and case.layout in plain]
    done = track('differences', len(compared) * len(settings.shapes))
    found = {}
    for shape in settings.shapes:
        wanted = {
            layout: make_outputs(cases[index], models[index], settings, shape)
            for layout, index in plain.items()
        }
        for index in compared:
            outputs = make_outputs(cases[index], models[index], settings, shape)
            found[index, shape] = difference(outputs, wanted[cases[index].layout])
            done()
    return found


def difference(outputs: Any, wanted: Any) -> tuple[float, float]:
    """Return the largest difference of any element, and that over the largest wanted one."""
    ours, theirs = flatten(outputs), flatten(wanted)
    largest = max(float(b.abs().max()) for b in theirs)
    # Not Python's max, which passes over NaN.
    found = float(
        torch.stack([(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]).max()
    )
    return found, found / largest


def flatten(outputs: Any) -> list[Tensor]:
    """Return the tensors in nested tuples and lists as float64."""
    if isinstance(outputs, Tensor):
        return [outputs.double()]
    return [tensor for output in outputs for tensor in flatten(output)]
