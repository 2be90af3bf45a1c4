"""The command ``mmuniformer benchmark``: one sub-command a task."""

from __future__ import annotations

import click

from mmuniformer.benchmark_seg import seg


@click.group('benchmark')
def command() -> None:
    """Measure accuracy, time, memory and FLOPs side by side."""


command.add_command(seg)
