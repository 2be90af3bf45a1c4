#!/usr/bin/env python3
"""Create .venv and install the pinned stack and mmuniformer into it, step by step.

Run by ``make install``. Needs nothing but Python 3.11. Each step is skipped when its check already
holds, so that a second run costs a second; a step that fails names itself and the way out.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / 'requirements' / 'constraints.txt'
# What the installed package is made of: it is installed again when one of these changes.
SOURCES = (
    *('mmuniformer', 'configs', 'tools', 'requirements', 'model-index.yml', 'setup.py'),
    'pyproject.toml',
)
HEARTBEAT_SECONDS = 15
COMPILE_JOB_BYTES = 3 * 1024**3

NETWORK = (
    'Read the end of the log. If it speaks of connections or of "no matching distribution", make '
    'the package index reachable (proxy, PIP_INDEX_URL) and run the same command again: finished '
    'steps are kept.'
)
COMPILER = 'It compiles C++: install g++ and the headers of this Python (python3.11-dev).'


class Step(NamedTuple):
    """One call of pip: ``packages`` are names in the constraints file."""

    name: str
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    probe: str = ''
    cure: str = NETWORK


STEPS = (
    Step('build tools', ('setuptools', 'wheel', 'ninja', 'Cython', 'packaging')),
    Step(
        'torch',
        ('torch', 'numpy'),
        probe='import torch, numpy',
        cure=f'{NETWORK} For a machine without a GPU, let pip see an index with CPU builds first.',
    ),
    Step(
        'libraries',
        (
            *('addict', 'click', 'colorama', 'ftfy', 'json-tricks', 'matplotlib', 'model-index'),
            *('munkres', 'onnx', 'onnxruntime', 'onnxscript', 'opencv-python-headless', 'pandas'),
            *('pillow', 'prettytable'),
            *('pycocotools', 'PyYAML', 'regex', 'requests', 'rich', 'scipy', 'shapely', 'six'),
            *('tabulate', 'tensorboard', 'termcolor', 'terminaltables', 'tqdm', 'yapf'),
            *('pytest', 'ruff'),
        ),
        probe='import cv2',
        cure=f'{NETWORK} If cv2 is what fails: pip uninstall -y opencv-python, then run it again.',
    ),
    # The frameworks come without their dependencies: the constraints file says which of these
    # would break the stack. Those they need are in the step above.
    Step('mmengine', ('mmengine',), ('--no-deps',), probe='import mmengine'),
    Step(
        'mmcv with compiled ops',
        ('mmcv',),
        # Without torch in sight mmcv's setup leaves the ops out silently: no build isolation.
        ('--no-deps', '--no-build-isolation', '--verbose'),
        probe='import mmcv.ops',
        cure=f'{COMPILER} A job takes up to 3 GB of memory: MAX_JOBS=1 asks for one at a time. '
        'If ops are missing from an mmcv that was there before: pip uninstall -y mmcv, '
        'pip cache remove mmcv, and run it again.',
    ),
    Step(
        'xtcocotools from source',
        ('xtcocotools',),
        # Its wheel is built for numpy 1.
        ('--no-deps', '--no-build-isolation', '--no-binary', 'xtcocotools'),
        probe='import xtcocotools.mask',
        cure=f'{COMPILER} If it was there before: pip uninstall -y xtcocotools, and run it again.',
    ),
    Step(
        'mmdet, mmsegmentation, mmpose',
        ('mmdet', 'mmsegmentation', 'mmpose'),
        ('--no-deps',),
        probe='import mmdet, mmseg, mmpose',
    ),
    Step('mim', ('openmim',), ('--no-deps',), probe='import mim'),
)


class StepError(Exception):
    """A step failed; the message holds its name and the way out."""


def say(text: str) -> None:
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def read_pins(text: str) -> dict[str, str]:
    """Return {name: version} of a constraints file."""
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return dict(line.split('==') for line in lines if line)


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
    """Return {normalised name: version without its local part} of what lies in ``site``."""
    found = importlib.metadata.distributions(path=[str(site)])
    # An interrupted pip leaves folders without a name behind.
    named = [(d.metadata['Name'], d.version) for d in found if d.metadata['Name']]
    return {normalise(name): version.split('+')[0] for name, version in named}


def normalise(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def compile_jobs() -> int:
    """Return how many compilers run at once: one a core, as far as the memory goes."""
    memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return max(1, min(os.cpu_count() or 1, memory // COMPILE_JOB_BYTES))


class Environment:
    """A virtual environment and its log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / 'bin' / 'python'
        self.log = folder / 'install.log'
        self.site = folder / 'lib' / 'python3.11' / 'site-packages'

    def stamp(self, name: str) -> Path:
        """Return the file that says what was installed."""
        return self.folder / f'.{name}-stamp'

    def is_stamped(self, name: str, value: str) -> bool:
        """Tell whether ``value`` was what was installed last."""
        stamp = self.stamp(name)
        return stamp.exists() and stamp.read_text() == value

    def probe(self, code: str) -> bool:
        """Tell whether the environment's Python can run ``code``."""
        command = [str(self.python), '-c', code]
        return subprocess.run(command, cwd=self.folder, capture_output=True).returncode == 0

    def run(self, title: str, command: list[str], cure: str) -> None:
        """Run a command with its output in the log and a sign of life here."""
        environment = {
            'MAX_JOBS': str(compile_jobs()),
            # Without debug symbols mmcv compiles in two thirds of the time.
            'CFLAGS': '-g0',
            'CXXFLAGS': '-g0',
            'PIP_DISABLE_PIP_VERSION_CHECK': '1',
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
            raise StepError(f'{title} failed:\n{quoted}\n  log: {self.log}\n  what to do: {cure}')

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
    """Create the virtual environment unless its Python is there and has pip."""
    usable = 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))'
    if environment.python.exists() and environment.probe(usable):
        return
    folder = environment.folder
    folder.mkdir(parents=True, exist_ok=True)
    cure = (
        'Debian and Ubuntu: apt install python3.11-venv. If this folder is from another Python or '
        f'was moved here, remove it: {folder}'
    )
    command = [sys.executable, '-m', 'venv', str(folder)]
    environment.run("'virtual environment'", command, cure)
    command = [str(environment.python), '-c', usable]
    environment.run("'virtual environment', trying it,", command, cure)


def install_stack(environment: Environment) -> None:
    """Run the steps whose check does not hold yet."""
    pins = read_pins(CONSTRAINTS.read_text())
    value = digest([CONSTRAINTS, Path(__file__).resolve()])
    installed = installed_versions(environment.site)
    names = [name for step in STEPS for name in step.packages]
    complete = all(installed.get(normalise(name)) == pins[name] for name in names)
    if complete and environment.is_stamped('stack', value):
        return say('stack: ready')
    pip = [str(environment.python), '-m', 'pip', 'install', '-c', str(CONSTRAINTS)]
    for number, step in enumerate(STEPS, start=1):
        title = f"step {number}/{len(STEPS)} '{step.name}'"
        current = all(installed.get(normalise(name)) == pins[name] for name in step.packages)
        if current and (not step.probe or environment.probe(step.probe)):
            say(f'{title}: already there')
            continue
        say(f'{title} ...')
        wanted = [f'{name}=={pins[name]}' for name in step.packages]
        started = time.monotonic()
        environment.run(title, [*pip, *step.options, *wanted], step.cure)
        if step.probe:
            command = [str(environment.python), '-c', step.probe]
            environment.run(f'{title}, trying it,', command, step.cure)
        say(f'{title}: {time.monotonic() - started:.0f} s')
    environment.stamp('stack').write_text(value)


def install_package(environment: Environment) -> None:
    """Install mmuniformer for real (mim can't see editable installs) if its files changed."""
    value = digest([ROOT / name for name in SOURCES])
    present = 'mmuniformer' in installed_versions(environment.site)
    if present and environment.is_stamped('package', value):
        return say('mmuniformer: ready')
    pip = [str(environment.python), '-m', 'pip', 'install', '--no-index', '--no-deps']
    options = ['--no-build-isolation', '--force-reinstall', str(ROOT)]
    environment.run("'mmuniformer'", pip + options, 'Read the log; it builds from this checkout.')
    environment.stamp('package').write_text(value)
    say('mmuniformer: installed')


def main() -> int:
    if sys.version_info[:2] != (3, 11):
        version = '.'.join(map(str, sys.version_info[:3]))
        say(
            f'Python 3.11 is needed, this is {version} ({sys.executable}). Install it (apt install '
            'python3.11 python3.11-venv, pyenv, conda) and name it: make PYTHON=python3.11 ...'
        )
        return 1
    environment = Environment(ROOT / '.venv')
    started = time.monotonic()
    try:
        create(environment)
        install_stack(environment)
        install_package(environment)
    except StepError as error:
        say(str(error))
        return 1
    except OSError as error:
        cure = f'make sure that {environment.folder} can be written and has room'
        say(f'{error}\n  what to do: {cure}')
        return 1
    say(f'installed in {environment.folder} ({time.monotonic() - started:.1f} s)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
