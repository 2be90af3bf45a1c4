"""``mmuniformer doctor``: what is installed, what is wrong and the cure.

Every part is tried in a Python of its own, so that a missing or broken one, even one that kills
its process, spoils nothing but its own row.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import NamedTuple

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PROBE_SECONDS = 180

# The versions the stack is tested with; a test compares them with requirements/constraints.txt.
MMCV, MMENGINE, MMDET, MMSEG, MMPOSE = '2.1.0', '0.10.7', '3.3.0', '1.2.2', '1.3.2'
MIM, TORCH = '0.3.9', '2.13.0'

SETUPTOOLS = "pip install 'setuptools>=77.0.3,<81'"
INSTALL_MMCV = (
    f'{SETUPTOOLS} ninja && pip install --no-build-isolation mmcv=={MMCV}'
    '  (after torch; it compiles for some minutes)'
)
BUILD_XTCOCOTOOLS = (
    'pip install cython && pip install --force-reinstall --no-deps --no-build-isolation '
    '--no-binary xtcocotools xtcocotools'
)
INSTALL_MIM = (
    f'pip install --no-deps openmim=={MIM} && '
    'pip install click colorama model-index pandas requests rich tabulate'
)


class Part(NamedTuple):
    """A row of the table.

    ``code`` prints what was found; ``needs`` are rows without which it can't work; ``install`` is
    the cure where it is missing.
    """

    code: str
    install: str = ''
    needs: tuple[str, ...] = ()


def _show(module: str) -> str:
    """Return code that prints a module's version, and whether mim would find its configs."""
    return (
        f'import pathlib, {module}; there = pathlib.Path({module}.__path__[0], ".mim").is_dir(); '
        f'print({module}.__version__ + ("" if there else " without .mim"))'
    )


def _framework(module: str) -> str:
    """Return code that imports what a framework's training imports, with our fixes applied."""
    folders = ('models', 'datasets', 'evaluation', 'visualization')
    parts = ', '.join(f'{module}.{folder}' for folder in folders)
    return f'import mmuniformer, {parts}; {_show(module)}'


PARTS = {
    'python': Part('import platform; print(platform.python_version())'),
    'torch': Part(
        'import torch; print(torch.__version__)',
        f"pip install torch=={TORCH}  (on Linux PyPI's build brings gigabytes of CUDA packages; "
        "without a GPU let pip see PyTorch's CPU index)",
    ),
    'CUDA': Part(
        'import torch\n'
        'built, there = torch.version.cuda, torch.cuda.is_available()\n'
        'name = torch.cuda.get_device_name(0) if there else "no GPU in reach"\n'
        'print(f"{built}, {name}" if built else "none, torch is a CPU build")',
        needs=('torch',),
    ),
    'numpy': Part('import numpy; print(numpy.__version__)', 'pip install numpy'),
    'torchvision': Part('import torchvision; print(torchvision.__version__)'),
    'setuptools': Part('import setuptools; print(setuptools.__version__)', SETUPTOOLS),
    'mmengine': Part(
        'import mmengine.runner; print(mmengine.__version__)',
        f'pip install mmengine=={MMENGINE}',
        ('torch', 'numpy', 'torchvision'),
    ),
    'mmcv': Part('import mmcv; print(mmcv.__version__)', INSTALL_MMCV, ('torch', 'mmengine')),
    'mmcv ops': Part(
        'import torch; from mmcv.ops import nms, roi_align\n'
        'box = torch.tensor([[0., 0., 4., 4.]])\n'
        'nms(box, torch.ones(1), 0.5)\n'
        'roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0., 0., 0., 4., 4.]]), (2, 2))\n'
        'print("nms and roi_align run")',
        needs=('torch', 'mmcv'),
    ),
    'mmdet': Part(_framework('mmdet'), f'pip install mmdet=={MMDET}', ('mmcv ops',)),
    'mmseg': Part(
        _framework('mmseg'),
        f'pip install mmsegmentation=={MMSEG} ftfy regex',
        ('mmcv ops',),
    ),
    'xtcocotools': Part('import xtcocotools.mask; print("imports")', BUILD_XTCOCOTOOLS, ('numpy',)),
    'mmpose': Part(
        _framework('mmpose'),
        f'pip install --no-deps mmpose=={MMPOSE} && pip install json-tricks munkres && '
        f'{BUILD_XTCOCOTOOLS}',
        ('mmcv ops', 'xtcocotools'),
    ),
    'mim': Part(
        'import mim.cli, mim.version; print(mim.version.__version__)', INSTALL_MIM, ('setuptools',)
    ),
    'mmuniformer': Part(
        'import warnings; warnings.simplefilter("error", RuntimeWarning)\n'
        'import mmuniformer; from mmengine.registry import MODELS\n'
        f'MODELS.build(dict(type="mmuniformer.UniFormer", arch="nano"))\n{_show("mmuniformer")}',
        'pip install mmuniformer',
        ('torch', 'mmengine'),
    ),
    'training checkpoints': Part(
        'import io, torch, mmuniformer; from mmengine.logging import HistoryBuffer\n'
        'file = io.BytesIO(); torch.save(HistoryBuffer([1.0], [1]), file); file.seek(0)\n'
        'torch.load(file, weights_only=True)\n'
        'print("reload with weights_only")',
        needs=('torch', 'mmengine', 'mmuniformer'),
    ),
}

TASKS = {
    'det': ('mmdet', 'mmcv ops', 'mmuniformer', 'training checkpoints'),
    'seg': ('mmseg', 'mmcv ops', 'mmuniformer', 'training checkpoints'),
    'pose': ('mmpose', 'mmcv ops', 'mmuniformer', 'training checkpoints'),
}

# What breaks on users' machines, as (pattern in "part: error", cure). The first match counts.
CURES = (
    (
        r'torchvision::nms|torchvision: (?!.*No module)',
        'pip uninstall -y torchvision  (built for another torch; nothing here needs it. Beside a '
        'CUDA torch you may install the version that belongs to it)',
    ),
    (
        r'mmcv\._ext|mmcv.*undefined symbol',
        f'pip uninstall -y mmcv && pip cache remove mmcv && {INSTALL_MMCV}',
    ),
    (r'MMCV==\S+ is used but incompatible', f'pip uninstall -y mmcv && {INSTALL_MMCV}'),
    (r'xtcocotools: .*numpy\.dtype size changed', BUILD_XTCOCOTOOLS),
    (
        r"No module named 'torchvision'",
        'import mmuniformer first: it stands in for the one name that mmpose wants of torchvision',
    ),
    (r"No module named '(ftfy|regex)'", 'pip install ftfy regex'),
    (r"No module named '(json_tricks|munkres)'", 'pip install json-tricks munkres'),
    (r"No module named 'pkg_resources'", SETUPTOOLS),
    (
        r'Weights only load failed',
        "import mmuniformer before loading: it allows the few types of mmengine's checkpoints",
    ),
    (
        r"libGL\.so|libgthread|No module named 'cv2'",
        'pip uninstall -y opencv-python && '
        'pip install --force-reinstall --no-deps opencv-python-headless',
    ),
)

# What works now but will surprise, as (part, pattern in what was found, what is wrong, cure).
NOTES = (
    (
        'setuptools',
        r'^(?!7[7-9]\.|80\.)',
        "torch wants 77.0.3 or later, mim and mmcv's setup one before 81; opendatalab, which mim "
        'would bring, pins an old one',
        f'pip uninstall -y opendatalab openxlab; {SETUPTOOLS}',
    ),
    (
        'CUDA',
        'no GPU in reach$',
        'torch is a CUDA build: gigabytes without a use, unless a driver is to be mended',
        "pip uninstall -y torch, then install it with PyTorch's CPU index in pip's sight",
    ),
    (
        'mmdet',
        r'without \.mim$',
        'an editable install: bases named mmdet:: are not found',
        "mmuniformer's configs have bases of their own; for others, install mmdet without -e",
    ),
    (
        'mmuniformer',
        r'without \.mim$',
        'a checkout or an editable install: mim does not find its configs',
        'pip install --no-deps --no-build-isolation .  (without -e)',
    ),
)


@dataclass
class Finding:
    """What was found about a part; ``state`` is ok, note, blocked or broken."""

    name: str
    found: str
    state: str = 'ok'
    problem: str = ''
    cure: str = ''


def examine() -> list[Finding]:
    """Try every part, a few at a time, and say what to do about those that fail."""
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        outcomes = dict(zip(PARTS, pool.map(_try, PARTS.values()), strict=True))
    findings: dict[str, Finding] = {}
    for name, (found, error) in outcomes.items():
        findings[name] = _judge(name, found, error, findings)
    return list(findings.values())


def _try(part: Part) -> tuple[str, str]:
    """Return (what the code printed, '') or ('', its error)."""
    # Safe path: a folder called mmdet in the working directory is not the installed one.
    environment = {**os.environ, 'PYTHONSAFEPATH': '1', 'PYTHONWARNINGS': 'ignore'}
    command = [sys.executable, '-c', part.code]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return '', f'no answer within {PROBE_SECONDS} s'
    if done.returncode == 0:
        return done.stdout.strip().splitlines()[-1], ''
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if done.returncode < 0:
        lines.append(f'its process died of signal {-done.returncode}')
    return '', lines[-1].strip() if lines else f'exit status {done.returncode}'


def _judge(name: str, found: str, error: str, earlier: dict[str, Finding]) -> Finding:
    """Turn an outcome into a finding; ``earlier`` holds those of the parts it needs."""
    if not error:
        for part, pattern, problem, cure in NOTES:
            if part == name and re.search(pattern, found):
                return Finding(name, found, 'note', problem, cure)
        return Finding(name, found)
    part, module = PARTS[name], name.split()[0]
    absent = f"No module named '{module}'" in error
    if absent and name == 'torchvision':
        return Finding(name, 'absent', problem='not needed')
    blocking = [need for need in part.needs if earlier[need].state in ('broken', 'blocked')]
    if blocking:
        return Finding(name, '-', 'blocked', f'waits for {", ".join(blocking)}')
    known = [cure for pattern, cure in CURES if re.search(pattern, f'{name}: {error}')]
    lacking = re.search(r"No module named '(\w+)", error)
    if known:
        cure = known[0]
    elif lacking and not absent:
        cure = f'pip install {lacking[1]}'
    else:
        cure = part.install or f'reinstall {module}'
    return Finding(name, 'absent' if absent else 'broken', 'broken', error, cure)


def runnable(findings: list[Finding]) -> dict[str, bool]:
    """Return for each task whether everything it needs works."""
    fine = {finding.name for finding in findings if finding.state in ('ok', 'note')}
    return {task: fine.issuperset(parts) for task, parts in TASKS.items()}


def show(findings: list[Finding], console: Console) -> None:
    """Print the table, then each cure on lines of its own, ready to copy."""
    colours = {'ok': 'green', 'note': 'yellow', 'blocked': 'yellow', 'broken': 'red'}
    table = Table('part', 'found', 'state', 'what is wrong')
    for finding in findings:
        state = f'[{colours[finding.state]}]{finding.state}'
        table.add_row(finding.name, escape(finding.found), state, escape(finding.problem))
    console.print(table)
    for finding in findings:
        if finding.cure:
            console.print(f'[bold]{finding.name}[/]: {escape(finding.cure)}', soft_wrap=True)
    for task, works in runnable(findings).items():
        console.print(f'{task}: {"[green]can run" if works else "[red]can not run"}')


@click.command()
@click.option('--json', 'as_json', is_flag=True, help='Print the findings as JSON.')
def command(as_json: bool) -> None:
    """Show what is installed, what is wrong and the cure.

    Ends with status 1 if detection, segmentation or pose estimation can not run.
    """
    console = Console()
    with Console(stderr=True).status('trying every part, some seconds ...'):
        findings = examine()
    tasks = runnable(findings)
    if as_json:
        parts = [asdict(finding) for finding in findings]
        click.echo(json.dumps({'parts': parts, 'tasks': tasks}, indent=2))
    else:
        show(findings, console)
    if not all(tasks.values()):
        raise SystemExit(1)
