"""The loop of a prediction run: read, predict, write; what fails is told at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mmuniformer.apis.inference.coco import PictureIds
from mmuniformer.apis.inference.inputs import Problem, Shot, Source, count_shots, read_shots
from mmuniformer.apis.inference.output import Output, Task

Item = TypeVar('Item')


@dataclass
class Outcome:
    """What a run did: pictures predicted on, records written, and what was left out."""

    pictures: int = 0
    records: int = 0
    problems: list[Problem] = field(default_factory=list)


class RateColumn(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Any) -> Text:
        """Return the rate, or nothing before it is known."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text('')
        return Text(f'{speed:.1f}/s' if speed >= 1 else f'{1 / speed:.1f} s each')


def predict(
    task: Task,
    sources: Sequence[Source],
    output: Output,
    ids: PictureIds,
    batch_size: int = 1,
    console: Console | None = None,
) -> Outcome:
    """Predict on all sources and write the results.

    Args:
        task: What to predict.
        sources: The files.
        output: Where to.
        ids: The pictures' numbers in the records.
        batch_size: Pictures read and predicted on at a time.
        console: Where the progress is shown; None for nowhere.
    """
    outcome = Outcome()
    bar = Progress(
        TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), RateColumn(),
        TimeRemainingColumn(), console=console, disable=console is None,
    )  # fmt: skip
    with output.opened(task.categories), bar:
        progress = bar.add_task('predicting', total=count_shots(sources))
        for batch in batched(read_shots(sources, outcome.problems), batch_size):
            numbered = list(number_shots(batch, ids, outcome.problems))
            for shot, number, result in run_batch(task, numbered, outcome.problems):
                output.add(shot, number, task, result)
                outcome.pictures += 1
            bar.update(progress, advance=len(batch))
        outcome.records = output.written
        bar.update(progress, completed=bar.tasks[0].total)
    return outcome


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of up to ``size`` items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def number_shots(
    shots: Iterable[Shot], ids: PictureIds, problems: list[Problem]
) -> Iterator[tuple[Shot, Any]]:
    """Give pictures their ids; those without are added to ``problems``."""
    for shot in shots:
        try:
            yield shot, ids(shot)
        except LookupError as error:
            problems.append(Problem(str(shot), error.args[0]))


def run_batch(
    task: Task, batch: list[tuple[Shot, Any]], problems: list[Problem]
) -> Iterator[tuple[Shot, Any, Any]]:
    """Predict on a batch; a picture that the network can not take does not stop the others."""
    try:
        results = task(batch) if batch else []
    except ValueError as error:
        if len(batch) == 1:
            problems.append(Problem(str(batch[0][0]), str(error)))
        else:
            for single in batch:
                yield from run_batch(task, [single], problems)
    else:
        for (shot, number), result in zip(batch, results, strict=True):
            yield shot, number, result
