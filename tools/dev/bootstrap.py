#!/usr/bin/env python3
"""Create a virtual environment and install a stack and mmuniformer into it.

Run by ``make install``; needs nothing but Python. Each section of requirements/constraints.txt,
with what the file of another stack or of this Python changes, is one step. A step whose packages
are installed and work is skipped, so a second run takes a second.

``MMUNIFORMER_FIX_TORCH=SCRIPT`` installs torch without its dependencies, then runs SCRIPT with the
path of torch's ``lib`` folder: for builds that do not import here otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / 'requirements' / 'constraints.txt'
HASHES = CONSTRAINTS.with_name('hashes.txt')
UNHASHED = ('torch', 'torchvision')
"""Packages whose builds for CPUs and GPUs come from several indexes, under one version."""
PYTHONS = {
    'pinned': ((3, 10), (3, 13)),
    'onedl': ((3, 10), (3, 13)),
    'old': ((3, 10), (3, 11)),  # torch 2.1 has no builds for later ones
}
"""The first and the last Python of each stack."""
PREFERRED = 'python3.11'
# mmuniformer is installed again when one of these changes.
SOURCES = (
    *('mmuniformer', 'mmuniformer_command.py', 'configs', 'tools/train.py', 'tools/test.py'),
    *('model-index.yml', 'requirements', 'setup.py', 'pyproject.toml'),
)
HEARTBEAT_SECONDS = 15
FIX_TORCH = os.environ.get('MMUNIFORMER_FIX_TORCH', '')
COMPILE_JOB_BYTES = 3 * 1024**3

NETWORK = (
    'Read the end of the log. If it reports connection errors or "no matching distribution", make '
    'the package index reachable (proxy, PIP_INDEX_URL) and run the same command again: finished '
    'steps are kept.'
)
VERSION = '{}.{}'.format(*sys.version_info)
COMPILER = f'It compiles C++: install g++ and the headers of Python (python{VERSION}-dev).'
TORCHVISION_HEAD = """\
# Written by mmuniformer's tools/dev/bootstrap.py: the compiled operators of this build do not load
# beside a CPU build of torch. With their schemas declared, the rest of torchvision imports.
import torch as _torch

if _torch.version.cuda is None:
    _schemas = _torch.library.Library('torchvision', 'DEF')
    for _name in ('nms', 'qnms'):
        _schemas.define(f'{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')

"""


class Step(NamedTuple):
    """How to install one section of the constraints file."""

    options: tuple[str, ...] = ()
    """Options of pip."""
    probe: str = ''
    """Python code that fails if the packages do not work."""
    fix: str = NETWORK
    """What to do when the step fails."""
    finish: Callable[[Environment], None] | None = None
    """Called after pip."""


def declare_operators(environment: Environment) -> None:
    """Make torchvision importable where its compiled operators do not load."""
    if environment.probe('import torchvision'):
        return
    file = environment.site / 'torchvision' / '__init__.py'
    text = file.read_text()
    if not text.startswith(TORCHVISION_HEAD):
        file.write_text(TORCHVISION_HEAD + text)


# By section of the constraints file; sections that are not here need no options and no probe. The
# frameworks come without their dependencies: the file says which of these would break the stack.
STEPS = {
    'torch': Step(
        probe='import torch, numpy',
        fix=f'{NETWORK} Without a GPU, let pip see an index with CPU builds of torch first.',
    ),
    'libraries': Step(
        probe='import cv2',
        fix=f'{NETWORK} If cv2 is what fails: pip uninstall -y opencv-python, then run it again.',
    ),
    'torchvision': Step(('--no-deps',), 'import torchvision', finish=declare_operators),
    'mmengine': Step(('--no-deps',), 'import mmengine'),
    'mmcv': Step(
        # Without torch in sight mmcv's setup silently leaves the operators out: no isolation.
        ('--no-deps', '--no-build-isolation', '--verbose'),
        'import mmcv.ops',
        f'{COMPILER} A job takes up to 3 GB of memory: MAX_JOBS=1 runs one at a time. '
        'If an mmcv installed earlier lacks its operators: pip uninstall -y mmcv, '
        'pip cache remove mmcv, and run it again.',
    ),
    'xtcocotools': Step(
        # Its wheel is built for numpy 1.
        ('--no-deps', '--no-build-isolation', '--no-binary', 'xtcocotools'),
        'import xtcocotools.mask',
        f'{COMPILER} If it was installed earlier: pip uninstall -y xtcocotools, and run it again.',
    ),
    'frameworks': Step(('--no-deps',), 'import mmdet, mmseg, mmpose'),
    'cls': Step(('--no-deps',), 'import mmpretrain.models, mmpretrain.datasets'),
    # mmaction2 needs more: mmuniformer/compat.py lets mmaction.models import.
    'video': Step(('--no-deps',), 'import mmaction, mmaction.datasets'),
    'mim': Step(('--no-deps',), 'import mim'),
}


class StepError(Exception):
    """A step failed; the message names it and the fix."""


def say(text: str) -> None:
    print(text, flush=True)


def read_sections(text: str) -> dict[str, dict[str, str]]:
    """Return {section: {package: version}} of a constraints file.

    A section starts with a line ``# [name]`` and ends at the next.
    """
    sections: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        if header := re.match(r'# \[(.+?)\]', line):
            packages = sections.setdefault(header[1], {})
        elif requirement := line.split('#')[0].strip():
            name, _, version = requirement.partition('==')
            packages[name] = version
    return sections


def read_stack(stack: str) -> dict[str, dict[str, str]]:
    """Return the sections of a stack on this Python.

    The files of this Python and of the stack, where there are any, add to constraints.txt and
    replace pins of the same package or those that a comment "instead of NAME" names. They may leave
    a section out.
    """
    sections = read_sections(CONSTRAINTS.read_text())
    for name in (f'python{VERSION}', stack):
        file = CONSTRAINTS.with_name(f'{name}.txt')
        text = file.read_text() if file.exists() else ''
        replaced = re.findall(r'# instead of (\S+)', text)
        for section, pins in read_sections(text).items():
            kept = sections[section].items()
            sections[section] = {k: v for k, v in kept if k not in replaced} | pins
        for section in re.findall(r'# \[(.+?)\] is left out', text):
            del sections[section]
    return sections


def hashed(pins: dict[str, str], text: str) -> str:
    """Return the entries of a file of hashes for some packages.

    Raises:
        StepError: The file lacks a package at this version.
    """
    entries = {entry.split(' ')[0].lower(): entry for entry in re.split(r'\n(?=\w)', text)}
    names = [f'{normalize(name)}=={version}' for name, version in pins.items()]
    missing = [name for name in names if name not in entries]
    if missing:
        raise StepError(
            f'{HASHES} has no hashes of {", ".join(missing)}: it is for the pinned stack on Python '
            '3.11 to 3.13; `make hashes` writes it anew. Without HASHES=1 nothing is checked.'
        )
    return '\n'.join(entries[name] for name in names) + '\n'


def install_hashed(
    environment: Environment, title: str, pip: list[str], pins: dict[str, str], fix: str
) -> None:
    """Install packages without dependencies, each file only if its hash is known."""
    if not pins:
        return
    listed = environment.folder / 'hashes.txt'
    listed.write_text(hashed(pins, HASHES.read_text()))
    options = ['--require-hashes', '-r', str(listed)]
    options += [] if '--no-deps' in pip else ['--no-deps']
    environment.run(title, [*pip, *options], fix)


def digest(paths: list[Path]) -> str:
    """Hash names and contents of files and, recursively, of folders."""
    found = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob('*')) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and '__pycache__' not in file.parts:
                found.update(f'{file.relative_to(ROOT)}\0'.encode() + file.read_bytes() + b'\0')
    return found.hexdigest()


def installed_versions(site: Path) -> dict[str, str]:
    """Return {normalized name: version without its local part} of the packages in ``site``."""
    found = importlib.metadata.distributions(path=[str(site)])
    # An interrupted pip leaves folders without a name behind.
    named = [(d.metadata['Name'], d.version) for d in found if d.metadata['Name']]
    return {normalize(name): version.split('+')[0] for name, version in named}


def normalize(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def compile_jobs() -> int:
    """Return how many compilers run at once: one per core, as far as memory allows."""
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return max(1, min(os.cpu_count() or 1, memory // COMPILE_JOB_BYTES))


class Environment:
    """A virtual environment and its log."""

    def __init__(self, folder: Path, stack: str = 'pinned', hashes: bool = False) -> None:
        self.folder = folder
        self.stack = stack
        self.hashes = hashes
        self.python = folder / 'bin' / 'python'
        self.log = folder / 'install.log'
        self.site = folder / 'lib' / f'python{VERSION}' / 'site-packages'

    def stamp(self, name: str) -> Path:
        """Return the file that records what was installed."""
        return self.folder / f'.{name}-stamp'

    def is_stamped(self, name: str, value: str) -> bool:
        """Tell whether ``value`` was installed last."""
        stamp = self.stamp(name)
        return stamp.exists() and stamp.read_text() == value

    def probe(self, code: str) -> bool:
        """Tell whether the environment's Python can run ``code``."""
        command = [str(self.python), '-c', code]
        return subprocess.run(command, cwd=self.folder, capture_output=True).returncode == 0

    def run(self, title: str, command: list[str], fix: str) -> None:
        """Run a command with its output in the log and progress on the screen.

        Raises:
            StepError: It failed; quotes the end of its output.
        """
        environment = {
            'MAX_JOBS': str(compile_jobs()),
            # Without debug symbols mmcv compiles in two thirds of the time.
            'CFLAGS': '-g0',
            'CXXFLAGS': '-g0',
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
            # What setup.py of mmcv needs on Python 3.13; harmless to the others.
            'PYTHONPATH': str(Path(__file__).with_name(f'python{VERSION}')),
            **os.environ,
        }
        started = beaten = time.monotonic()
        with self.log.open('a', errors='replace') as log:
            log.write(f'\n$ {" ".join(command)}\n')
            log.flush()
            begin = log.tell()
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
            while process.poll() is None:
                time.sleep(0.1)
                now = time.monotonic()
                if now - beaten >= HEARTBEAT_SECONDS:
                    beaten = now
                    say(f'    ... {now - started:.0f} s {self._progress(begin)}')
        if process.returncode:
            tail = self._written_since(begin).rstrip().splitlines()[-12:]
            quoted = '\n'.join(f'    | {line[:200]}' for line in tail)
            raise StepError(f'{title} failed:\n{quoted}\n  log: {self.log}\n  fix: {fix}')

    def _written_since(self, begin: int) -> str:
        with self.log.open(errors='replace') as log:
            log.seek(begin)
            return log.read()

    def _progress(self, begin: int) -> str:
        """Return ninja's last "[file/files]" or the command's last line."""
        text = self._written_since(begin)
        counts = re.findall(r'^\s*\[(\d+/\d+)\]', text, re.MULTILINE)
        if counts:
            return f'compiled {counts[-1]}'
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:80] if lines else ''


def create(environment: Environment) -> None:
    """Create the virtual environment unless its Python works and has pip."""
    usable = f'import pip, sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})'
    if environment.python.exists() and environment.probe(usable):
        return
    folder = environment.folder
    folder.mkdir(parents=True, exist_ok=True)
    fix = (
        f'Debian and Ubuntu: apt install python{VERSION}-venv. If this folder was made by another '
        f'Python or was moved here, remove it or name another (VENV=...): {folder}'
    )
    name = folder.name
    environment.run(f'creating {name}', [sys.executable, '-m', 'venv', str(folder)], fix)
    environment.run(f'probing {name}', [str(environment.python), '-c', usable], fix)


def extra_options(section: str, stack: str) -> list[str]:
    """Return the options of pip that hang on the stack or the machine."""
    if section == 'torch' and FIX_TORCH:
        return ['--no-deps']
    if section == 'mmcv' and stack == 'old':
        # pip's cache knows a compiled mmcv by its Python, not by its torch.
        return ['--no-cache-dir']
    return []


def install_stack(environment: Environment) -> None:
    """Run the steps whose packages are missing, of another version, or broken."""
    sections = read_stack(environment.stack)
    installed = installed_versions(environment.site)
    current = {
        section: all(installed.get(normalize(name)) == pins[name] for name in pins)
        for section, pins in sections.items()
    }
    value = digest([CONSTRAINTS.parent, Path(__file__).resolve()])
    if all(current.values()) and environment.is_stamped('stack', value):
        return say('stack: ready')
    pinned = environment.folder / 'constraints.txt'
    pins = [f'{name}=={version}' for pins in sections.values() for name, version in pins.items()]
    pinned.write_text('\n'.join(pins) + '\n')
    pip = [str(environment.python), '-m', 'pip', 'install', '-c', str(pinned)]
    for number, (section, pins) in enumerate(sections.items(), start=1):
        step = STEPS.get(section, Step())
        title = f"step {number}/{len(sections)} '{section}'"
        if current[section] and (not step.probe or environment.probe(step.probe)):
            say(f'{title}: already installed')
            continue
        say(f'{title} ...')
        started = time.monotonic()
        packages = [f'{name}=={version}' for name, version in pins.items()]
        options = [*step.options, *extra_options(section, environment.stack)]
        if environment.hashes:
            checked = {name: pins[name] for name in pins if name not in UNHASHED}
            packages = [package for package in packages if package.split('==')[0] in UNHASHED]
            install_hashed(environment, title, [*pip, *options], checked, step.fix)
        if packages:
            environment.run(title, [*pip, *options, *packages], step.fix)
        if section == 'torch' and FIX_TORCH:
            library = environment.site / 'torch' / 'lib'
            command = [str(environment.python), FIX_TORCH, str(library)]
            environment.run(f'{title}, {FIX_TORCH},', command, 'Read the log.')
        if step.finish:
            step.finish(environment)
        if step.probe:
            command = [str(environment.python), '-c', step.probe]
            environment.run(f'{title}, probing it,', command, step.fix)
        say(f'{title}: {time.monotonic() - started:.0f} s')
    environment.stamp('stack').write_text(value)


def install_package(environment: Environment) -> None:
    """Install mmuniformer if its files changed; not editable, or mim would not find it."""
    value = digest([ROOT / name for name in SOURCES])
    present = 'mmuniformer' in installed_versions(environment.site)
    if present and environment.is_stamped('package', value):
        return say('mmuniformer: ready')
    pip = [str(environment.python), '-m', 'pip', 'install', '--no-index', '--no-deps']
    options = ['--no-build-isolation', '--force-reinstall', str(ROOT)]
    environment.run("'mmuniformer'", pip + options, 'Read the log: it builds from this checkout.')
    environment.stamp('package').write_text(value)
    say('mmuniformer: installed')


def main(arguments: list[str]) -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--stack', choices=PYTHONS, default='pinned')
    parser.add_argument('--venv', type=Path, help='folder of the virtual environment')
    parser.add_argument(
        '--hashes', action='store_true', help=f'install only what {HASHES.name} has the hash of'
    )
    options = parser.parse_args(arguments)
    first, last = PYTHONS[options.stack]
    if not first <= sys.version_info[:2] <= last:
        found = '.'.join(map(str, sys.version_info[:3]))
        say(
            f'The {options.stack} stack needs Python {first[0]}.{first[1]} to {last[0]}.{last[1]}, '
            f'this is {found} ({sys.executable}). Install one (apt install {PREFERRED} '
            f'{PREFERRED}-venv, pyenv, conda) and name it: make PYTHON={PREFERRED} ...'
        )
        return 1
    name = '.venv' if options.stack == 'pinned' else f'.venv-{options.stack}'
    environment = Environment(
        (ROOT / (options.venv or name)).absolute(), options.stack, options.hashes
    )
    started = time.monotonic()
    try:
        create(environment)
        install_stack(environment)
        install_package(environment)
    except StepError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f'{error}\n  fix: make sure that {environment.folder} is writable and has space')
        return 1
    say(f'installed in {environment.folder} ({time.monotonic() - started:.1f} s)')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
