"""Generated tables in Markdown files."""

from __future__ import annotations

from collections.abc import Sequence

from mmuniformer.errors import UserError


def table(header: Sequence[str], lines: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Lay a table out; with ``numbers`` all columns but the first are aligned to the right."""
    rules = ['---', *['---:' if numbers else '---'] * (len(header) - 1)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in (header, rules, *lines))


def replace_between(text: str, begin: str, end: str, content: str) -> str:
    """Replace what stands between two markers.

    Raises:
        UserError: The markers are not there once each and in this order.
    """
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed or begin in rest or end in after:
        raise UserError(f'the lines {begin} and {end} must stand there once each, in this order')
    return f'{before}{begin}\n\n{content}\n\n{end}{after}'
