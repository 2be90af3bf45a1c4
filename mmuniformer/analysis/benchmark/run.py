"""Measuring the cases of a benchmark: all in one run, in turn."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from mmuniformer.analysis.benchmark import measure
from mmuniformer.analysis.benchmark.baselines import baseline_cases
from mmuniformer.analysis.benchmark.cases import Case, Settings, in_profile
from mmuniformer.analysis.benchmark.profiles import Profile
from mmuniformer.analysis.benchmark.report import Row, compare_with_plain, ratio
from mmuniformer.analysis.benchmark.step import multiply_adds
from mmuniformer.analysis.complexity import complexity
from mmuniformer.analysis.layouts import Layout
from mmuniformer.analysis.metafile import stated_accuracy
from mmuniformer.apis.config import clip_views
from mmuniformer.apis.models import build_model, quiet
from mmuniformer.datasets.checks.label_maps import check_batch
from mmuniformer.models.arch import STRIDES
from mmuniformer.models.base import find_backbone

MEGABYTE = 1 << 20
SCORES = ('mIoU', 'mAcc', 'aAcc')


def make_cases(
    cfg: Config, settings: Settings, layouts: Sequence[Layout], profiles: Sequence[Profile],
    against: bool,
) -> tuple[list[Case], list[Row]]:  # fmt: skip
    """Return a case for each layout, profile and baseline, and rows for what is not installed."""
    cases = []
    for layout, profile in itertools.product(layouts, profiles):
        stated = stated_accuracy(cfg.filename, layout.name) if settings.task != 'backbone' else None
        changed = in_profile(layout.in_config(cfg), profile)
        cases.append(Case(profile.name, changed, settings, layout.name, profile, stated))
    baselines, absent = baseline_cases(cfg, settings) if against else ([], [])
    return cases + baselines, absent


def measure_cases(
    cases: Sequence[Case], settings: Settings, console: Console, scored: bool = False
) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Return a row for each size and case, and the multiply-adds a second of products by type."""
    device = torch.device(settings.device)
    places = list(itertools.product(settings.shapes, range(len(cases))))
    with quiet(prints=True):  # the progress of scores, too
        models = [case.build() for case in cases]
        scores = [{} for _ in cases]
        for index, case in enumerate(cases):
            if scored and case.profile:
                name = f'scores, {case.layout} {case.name}'
                with case.autocast():
                    scores[index] = evaluate(models[index], case.cfg, console, name)
        seconds, rates, rows = {}, {}, []
        if settings.repeats:
            calls, work = {}, {}
            layers = list(hidden_layers(models[0], settings))
            for dtype in dict.fromkeys(case.dtype for case in cases):
                products = measure.products(device, getattr(torch, dtype), layers)
                for name, (call, count) in products.items():
                    calls[dtype, name], work[dtype, name] = call, count
            for shape, index in places:
                calls[shape, index] = cases[index].call(models[index], shape)
            seconds = measure.interleaved(calls, settings.repeats, device, console)
            for (dtype, name), count in work.items():
                rate = count / statistics.median(seconds[dtype, name])
                rates.setdefault(dtype, {})[name] = rate
        for shape, index in track(places, 'memory and FLOPs', console=console):
            case, model = cases[index], models[index]
            if device.type == 'cuda':
                growth, whole = measure.peak_memory_on_gpu(case.call(model, shape), device)
            else:
                growth, whole = measure.peak_memory_on_cpu(case.prepare, shape)
            # Built on the CPU first: not all networks can be built without memory.
            counted = complexity(case.cfg, shape, build_model(case.cfg).to('meta'))
            row = Row(
                profile=case.name,
                layout=case.layout,
                size=' x '.join(map(str, (settings.batch_size, *case.size(shape)))),
                peak_mb=growth / MEGABYTE,
                whole_mb=ratio(whole, MEGABYTE),
                gflops=counted.flops / 1e9 / (clip_views(case.cfg) or (None, 1))[1],
                params_m=counted.params / 1e6,
                published=case.published,
                **{name: scores[index].get(name) for name in SCORES},
            )
            if settings.repeats:
                rate = max(rates[case.dtype].values())
                set_times(row, seconds[shape, index], settings, case.size(shape), rate)
                for plain, reference in zip(models, cases, strict=True):
                    if (reference.name, reference.layout) != ('plain', case.layout):
                        continue
                    if settings.step:  # after different steps, outputs are different
                        needed = multiply_adds(reference.call(plain, shape))
                        row.of_rate = needed * 1e3 / row.ms / rate
                    else:
                        wanted = reference.outputs(plain, shape)
                        row.difference = difference(case.outputs(model, shape), wanted)
            if settings.operators:
                kinds = measure.seconds_by_kind(case.call(model, shape), device)
                for kind, spent in kinds.items():
                    setattr(row, f'{kind}_ms', spent * 1e3)
            rows.append(row)
    compare_with_plain(rows)
    return rows, rates


def hidden_layers(model: nn.Module, settings: Settings) -> Iterator[tuple[int, int, int, int]]:
    """Yield height, width, channels in and out of the first FFN layer of each stage."""
    backbone = find_backbone(model)[1]
    height, width = settings.shapes[0]
    strides = itertools.accumulate(STRIDES, operator.mul)
    for stage, stride in zip(range(backbone.num_stages), strides, strict=False):
        outer, inner = backbone.blocks(stage)[0].mlp.fc1.weight.shape[:2]
        yield max(height // stride, 1), max(width // stride, 1), inner, outer


def evaluate(
    model: nn.Module, cfg: Config, console: Console | None = None, name: str = 'scores'
) -> dict[str, float]:
    """Score a model on the config's test data; metrics by the names that its framework gives."""
    head = getattr(model, 'decode_head', None) if cfg.get('check_data', True) else None
    loader = Runner.build_dataloader(cfg.test_dataloader)
    evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    with torch.inference_mode():
        for batch in track(loader, name, console=console, disable=console is None):
            if head is not None:
                check_batch(head, batch)
            evaluator.process(model.test_step(batch), batch)
    found = evaluator.evaluate(len(loader.dataset))
    return {metric: float(value) for metric, value in found.items()}


def set_times(
    row: Row, seconds: Sequence[float], settings: Settings, size: tuple[int, ...], rate: float
) -> None:
    """Set what follows from the times of a row; ``rate`` is multiply-adds a second.

    ``size`` is height and width, of clips frames before them.
    """
    median = set_pace(row, seconds, settings.batch_size, size)
    row.ns_per_pixel = median * 1e9 / (settings.batch_size * math.prod(size))
    # Backward has two products for each of forward.
    passes = 3 if settings.mode == 'training' else 1
    # A detector trains on fewer boxes than FLOPs are counted for.
    if passes == 1 or settings.task != 'det':
        row.times_floor = median / (passes * row.gflops * 1e9 * settings.batch_size / rate)


def set_pace(row: Row, seconds: Sequence[float], batch_size: int, size: tuple[int, ...]) -> float:
    """Set a row's time, spread, and images or clips a second; return the median in seconds."""
    median = statistics.median(seconds)
    row.ms, row.spread = median * 1e3, (max(seconds) - min(seconds)) / median
    per_second = 'images_per_second' if len(size) == 2 else 'clips_per_second'
    setattr(row, per_second, batch_size / median)
    return median


def difference(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> float | None:
    """Return the largest difference over the largest wanted element; None if that is 0."""
    pairs = [(a.double(), b.double()) for a, b in zip(outputs, wanted, strict=True)]
    # Not Python's max, which passes over NaN.
    found = torch.stack([(a - b).abs().max() for a, b in pairs]).max()
    return ratio(float(found), max(float(b.abs().max()) for _, b in pairs))
