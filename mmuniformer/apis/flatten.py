"""A config with everything it inherits, written as one file to edit."""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmuniformer.errors import UserError

WIDTH = 100
SETTINGS_THAT_REPEAT = {'test_dataloader': 'val_dataloader', 'test_evaluator': 'val_evaluator'}
"""Settings that are written by the name of another one if they are the same."""


def flatten(cfg: Config) -> str:
    """Return a config as Python source that stands alone, in the config's own order.

    Variables of the config that are no settings of a run (pipelines, ``codec``, ``data_root``) come
    first, and what was made of them is written by their names: one edit changes it everywhere.
    Types are strings.

    Example:
        >>> print(flatten(Config({'data_root': 'data/', 'test_evaluator': {'file': 'data/a'}})))
        data_root = 'data/'
        <BLANKLINE>
        test_evaluator = dict(file=data_root + 'a')

    Raises:
        UserError: A value cannot be written as Python source.
    """
    content = cfg.to_dict()
    update_variables(content)
    names = [name for name in content if name not in SETTINGS and shared(content[name])]
    writer = Writer()
    blocks = []
    for name in [*names, *(name for name in content if name not in names)]:
        twin = SETTINGS_THAT_REPEAT.get(name)
        same = twin in content and repr(content[twin]) == repr(content[name])
        text = twin if same else writer.text(content[name], len(name) + 3, path=name)
        blocks.append(f'{name} = {text}')
        if name in names:
            writer.name(name, content[name])
    # A blank line around what takes several.
    lines = []
    for number, block in enumerate(blocks):
        last = number and blocks[number - 1]
        lines += [''] * (number > 0 and ('\n' in block + last or number == len(names)))
        lines.append(block)
    return '\n'.join(lines) + '\n'


SETTINGS = {
    *inspect.signature(Runner).parameters,
    *('runner_type', 'custom_imports', 'data_mode', 'tta_model', 'tta_pipeline'),
}
"""What mmengine's runner and the frameworks read by name."""


def update_variables(content: dict[str, Any]) -> None:
    """Give variables the values that options have given to the datasets made of them."""
    datasets = {}
    for split in ('train', 'val', 'test'):
        dataset = (content.get(f'{split}_dataloader') or {}).get('dataset')
        if isinstance(dataset, Mapping) and 'pipeline' in dataset:
            datasets[split] = dataset
            if f'{split}_pipeline' in content:
                content[f'{split}_pipeline'] = dataset['pipeline']
    for name, key in (('dataset_type', 'type'), ('data_root', 'data_root'), ('metainfo',) * 2):
        values = {repr(d.get(key)): d.get(key) for d in datasets.values()}
        if name in content and len(values) == 1:
            (content[name],) = values.values()


def shared(value: Any) -> bool:
    """Tell whether a variable's value is unlikely to be met by chance."""
    return isinstance(value, (Mapping, list, tuple, str)) and len(value) > 1


class Writer:
    """Writes values as Python source, those of ``names`` and below ``folders`` by name."""

    def __init__(self):
        self.names: dict[str, str] = {}
        self.folders: dict[str, str] = {}

    def name(self, name: str, value: Any) -> None:
        """Write a value, its lists and what lies in a folder by a name from now on."""
        self.names.setdefault(repr(value), name)
        if isinstance(value, str) and value.endswith('/'):
            self.folders[value] = name
        elif isinstance(value, Mapping):
            for key, each in value.items():
                if isinstance(each, (list, tuple)) and shared(each):
                    self.names.setdefault(repr(each), f'{name}[{key!r}]')

    def text(self, value: Any, used: int = 0, indent: int = 0, path: str = '') -> str:
        """Return the source of a value; ``used`` characters of its first line are taken."""
        if (name := self.names.get(repr(value))) is not None:
            return name
        if isinstance(value, str):
            for folder, name in self.folders.items():
                if value.startswith(folder) and value != folder:
                    return f'{name} + {value.removeprefix(folder)!r}'
            return repr(value)
        if isinstance(value, Mapping):
            plain = all(isinstance(k, str) and k.isidentifier() for k in value)
            plain = plain and not any(map(keyword.iskeyword, value))
            items = [(f'{k}=' if plain else f'{k!r}: ', v, f'{path}.{k}') for k, v in value.items()]
            left, right = ('dict(', ')') if plain else ('{', '}')
        elif isinstance(value, (list, tuple)):
            items = [('', v, f'{path}.{k}') for k, v in enumerate(value)]
            left, right = '[]' if isinstance(value, list) else '()'
        else:
            return literal(value, path)
        parts = [key + self.text(v, path=p) for key, v, p in items]
        comma = ',' * (left == '(' and len(parts) == 1)
        line = left + ', '.join(parts) + comma + right
        if '\n' not in line and indent + used + len(line) < WIDTH or not items:
            return line
        inner = indent + 4
        parts = [key + self.text(v, len(key), inner, p) for key, v, p in items]
        lines = [left, *(f'{" " * inner}{part},' for part in parts), ' ' * indent + right]
        return '\n'.join(lines)


def literal(value: Any, path: str) -> str:
    """Return the source of a single value; a class becomes its dotted name."""
    if isinstance(value, type) or (callable(value) and hasattr(value, '__qualname__')):
        return repr(f'{value.__module__}.{value.__qualname__}')
    if isinstance(value, float) and repr(value) in ('inf', '-inf', 'nan'):
        return f"float('{value!r}')"
    if value is None or isinstance(value, (bool, int, float, bytes)):
        return repr(value)
    raise UserError(f'{path} is a {type(value).__name__}, which cannot be written into a config')
