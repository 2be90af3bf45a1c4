"""``mmuniformer doctor``: what is installed, what is wrong, and the fix.

Each part is probed in a Python process of its own: one that is missing or broken, or even kills
its process, affects its own row only.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import click

PROBE_SECONDS = 180
PACKAGE = Path(__file__).resolve().parents[1]


def _read_pins(name: str) -> list[tuple[str, str, str]]:
    """Return (requirement, package, the package that it stands instead of) of a file."""
    places = (PACKAGE / '.mim', PACKAGE.parent)  # installed, or a checkout
    file = next(f for place in places if (f := place / 'requirements' / name).is_file())
    pattern = r'(?m)^(([\w.-]+)==\S+)(?:  # instead of (\S+))?'
    return re.findall(pattern, file.read_text())


FORKS = {upstream: fork for _, fork, upstream in _read_pins('onedl.txt') if upstream}
"""Upstream distributions, and the maintained forks that hold modules of the same names."""

# Names in braces become requirements: pinned upstream's, or the forks' where these are installed.
INSTALL_MMCV = (
    'pip install {setuptools} ninja && pip install --force-reinstall --no-deps --no-cache-dir '
    '--no-build-isolation {mmcv}  (after torch; compiles for some minutes)'
)
BUILD_XTCOCOTOOLS = (
    'pip install cython && pip install --force-reinstall --no-deps --no-build-isolation '
    '--no-binary xtcocotools {xtcocotools}'
)
UPDATE = (  # mmuniformer is on no package index
    'pip install --force-reinstall --no-deps --no-build-isolation .  (in an up-to-date checkout)'
)


class Part(NamedTuple):
    """A row of the table."""

    code: str
    """Prints what was found."""
    install: str
    """The fix unless ``FIXES`` has one."""
    needs: tuple[str, ...] = ()
    """Parts without which it cannot work."""


def _framework(module: str) -> str:
    """Return code that imports what training imports, after mmuniformer's compatibility fixes."""
    folders = ('models', 'datasets', 'evaluation', 'visualization')
    parts = ', '.join(f'{module}.{folder}' for folder in folders)
    return f'import mmuniformer, {parts}; print({module}.__version__)'


PARTS = {
    'python': Part('import platform; print(platform.python_version())', 'reinstall Python'),
    'torch': Part(
        'import torch; gpu = torch.cuda.is_available() and torch.cuda.get_device_name(0)\n'
        'build = torch.version.cuda or torch.version.hip or "CPU"\n'
        'print(f"{torch.__version__} ({build} build), {gpu or \'no GPU\'}")',
        "pip install {torch}  (PyPI's build for Linux brings gigabytes of CUDA packages: without a "
        "GPU, point pip at PyTorch's CPU index)",
    ),
    'numpy': Part('import numpy; print(numpy.__version__)', 'pip install {numpy}'),
    'torchvision': Part(
        'import torchvision; print(torchvision.__version__)',
        'pip install --force-reinstall --no-deps {torchvision}  (the build for the installed '
        'torch; where it is absent, detection and segmentation run)',
        ('torch',),
    ),
    'mmengine': Part(
        'import mmengine.runner; print(mmengine.__version__)',
        'pip install {mmengine}',
        ('torch', 'numpy', 'torchvision'),
    ),
    'mmcv': Part(
        'import mmcv, torch; from mmcv.ops import nms, roi_align\n'
        'box = torch.tensor([[0., 0., 4., 4.]])\n'
        'nms(box, torch.ones(1), 0.5)\n'
        'roi_align(torch.ones(1, 1, 8, 8), torch.tensor([[0., 0., 0., 4., 4.]]), (2, 2))\n'
        'print(f"{mmcv.__version__}, operators run")',
        INSTALL_MMCV,
        ('torch', 'mmengine'),
    ),
    'mmdet': Part(_framework('mmdet'), 'pip install {mmdet}', ('mmcv',)),
    'mmseg': Part(_framework('mmseg'), 'pip install {mmsegmentation} ftfy regex', ('mmcv',)),
    'xtcocotools': Part('import xtcocotools.mask; print("imports")', BUILD_XTCOCOTOOLS, ('numpy',)),
    'mmpose': Part(
        _framework('mmpose'),
        'pip install --no-deps {mmpose} && pip install json-tricks munkres && ' + BUILD_XTCOCOTOOLS,
        ('mmcv', 'torchvision', 'xtcocotools'),
    ),
    'mmpretrain': Part(
        _framework('mmpretrain'),
        'pip install --no-deps {mmpretrain} {mat4py} {importlib-metadata} {zipp}',
        ('mmcv', 'torchvision'),
    ),
    'mmaction': Part(
        _framework('mmaction'), 'pip install --no-deps {mmaction2} {einops}', ('mmcv',)
    ),
    'mim': Part(
        'import mim.cli, mim.version; print(mim.version.__version__)',
        'pip install --no-deps {openmim} && '
        'pip install click colorama model-index pandas requests rich tabulate',
    ),
    'mmuniformer': Part(
        'import pathlib, warnings; warnings.simplefilter("error", RuntimeWarning)\n'
        'import mmuniformer; from mmengine.registry import MODELS\n'
        'MODELS.build(dict(type="mmuniformer.UniFormer", arch="nano"))\n'
        'real = pathlib.Path(mmuniformer.__path__[0], ".mim").is_dir()\n'
        'print(mmuniformer.__version__ + ("" if real else ", not installed: mim cannot find it"))',
        UPDATE,
        ('torch', 'mmengine'),
    ),
    'training checkpoints': Part(
        'import os, sys, tempfile, torch, mmuniformer; from mmengine.logging import HistoryBuffer\n'
        'from mmengine.runner.checkpoint import CheckpointLoader\n'
        'folder = tempfile.TemporaryDirectory(); path = folder.name + "/run.pth"\n'
        'torch.save({"state_dict": {}, "history": HistoryBuffer([1.0], [1])}, path)\n'
        'CheckpointLoader.load_checkpoint(path)\n'
        'class Code: __reduce__ = lambda self: (os.mkdir, (folder.name + "/ran",))\n'
        'torch.save({"state_dict": {}, "code": Code()}, path)\n'
        'try: CheckpointLoader.load_checkpoint(path)\n'
        'except Exception: pass\n'
        'if os.path.exists(folder.name + "/ran"): sys.exit("a checkpoint ran code of its own")\n'
        'print("load; code in them is refused")',
        UPDATE,
        ('torch', 'mmengine', 'mmuniformer'),
    ),
}

TASKS = {
    task: (framework, 'mmcv', 'mmuniformer', 'training checkpoints')
    for task, framework in (
        *(('det', 'mmdet'), ('seg', 'mmseg'), ('pose', 'mmpose')),
        *(('cls', 'mmpretrain'), ('video', 'mmaction')),
    )
}
EXTRAS = ('cls', 'video')
"""Tasks that an installation may do without."""

# (pattern in "part: error", fix): the first match counts.
FIXES = (
    (r'MMCV==\S+ is used but incompatible', INSTALL_MMCV),
    (r"No module named '(ftfy|regex)'", 'pip install ftfy regex'),
    (r"No module named '(json_tricks|munkres)'", 'pip install json-tricks munkres'),
    (r"No module named 'pkg_resources'", 'pip install {setuptools}'),
    (
        # The distribution imgaug would install opencv-python over the headless build.
        r"No module named 'imgaug'",
        'pip install --no-deps imaug imagecorruptions-imaug && pip install imageio scikit-image',
    ),
    (
        r"libGL\.so|libgthread|No module named 'cv2'",
        'pip uninstall -y opencv-python && '
        'pip install --force-reinstall --no-deps opencv-python-headless',
    ),
)


@dataclass
class Finding:
    """One row."""

    name: str
    state: str
    """``ok``, ``absent``, ``broken``, or ``blocked`` by a part that it needs."""
    found: str
    """A version, or the error."""
    fix: str = ''


def examine() -> list[Finding]:
    """Probe all parts, a few at a time."""
    found = [(d.metadata['Name'], d.version) for d in importlib.metadata.distributions()]
    # An interrupted pip leaves folders without a name.
    installed = {name.lower().replace('_', '-'): version for name, version in found if name}
    stack = _judge_stack(installed)
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        outcomes = dict(zip(PARTS, pool.map(_probe, PARTS.values()), strict=True))
    packages = _packages(installed, cpu='CPU build' in outcomes['torch'][0])
    findings = {'stack': stack}
    for name, (version, error) in outcomes.items():
        findings[name] = finding = _judge(name, version, error, findings, packages)
        if stack.state != 'ok' and any(f'{{{upstream}' in finding.fix for upstream in FORKS):
            finding.fix = 'fix "stack" first'
        elif name in ('mmpretrain', 'mmaction') and stack.found == 'onedl forks' and finding.fix:
            finding.fix = "refuses the forks: use another environment, with upstream's stack"
        finding.fix = finding.fix.format_map(packages)
    return list(findings.values())


def _judge_stack(installed: dict[str, str]) -> Finding:
    """Tell whether the frameworks are upstream's, the forks', or a mixture."""
    upstream = sorted(installed.keys() & FORKS.keys())
    forks = sorted(installed.keys() & set(FORKS.values()))
    if upstream and forks:
        found = f'mixed: {", ".join(upstream)} of upstream, {", ".join(forks)} of the forks'
        fix = 'create a new virtual environment and install one of the two stacks in it'
        return Finding('stack', 'broken', found, fix)
    return Finding('stack', 'ok', 'upstream' if upstream else 'onedl forks' if forks else 'none')


def _packages(installed: dict[str, str], cpu: bool = False) -> dict[str, str]:
    """Return {upstream distribution: requirement} for the stack and torch that are installed."""
    packages = {package: requirement for requirement, package, _ in _read_pins('constraints.txt')}
    if installed.keys() & set(FORKS.values()):
        packages |= {upstream or fork: pin for pin, fork, upstream in _read_pins('onedl.txt')}
    if torch := re.match(r'2\.(\d+)\.', installed.get('torch', '')):
        # torchvision 0.15 pairs with torch 2.0, 0.16 with 2.1, and so on.
        packages['torchvision'] = f"'torchvision==0.{int(torch[1]) + 15}.*'"
    if cpu:  # PyPI's builds are for CUDA and do not load beside it
        packages['torchvision'] += ' --index-url https://download.pytorch.org/whl/cpu'
    return packages


def _probe(part: Part) -> tuple[str, str]:
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


def _judge(
    name: str, found: str, error: str, earlier: dict[str, Finding], packages: dict[str, str]
) -> Finding:
    """Turn an outcome into a finding; ``earlier`` holds those of the parts it needs."""
    if not error:
        return Finding(name, 'ok', found)
    part = PARTS[name]
    blocking = [need for need in part.needs if earlier[need].state != 'ok']
    if blocking:
        return Finding(name, 'blocked', f'waits for {", ".join(blocking)}')
    match = re.search(r"No module named '(\w+)", error)
    missing = match[1] if match else name
    fix = next((fix for pattern, fix in FIXES if re.search(pattern, error)), '')
    if not fix and missing in PARTS:
        fix = PARTS[missing].install
    elif not fix:
        # Whoever likes can give a package the name of a module that another package has.
        pin = next((p for p in packages if p.lower().replace('-', '_') == missing.lower()), None)
        fix = f'pip install {{{pin}}}' if pin else f'install the package that has {missing}'
    state = 'absent' if f"No module named '{name}'" in error else 'broken'
    return Finding(name, state, error, fix)


def runnable(findings: list[Finding]) -> dict[str, bool]:
    """Return for each task whether all it needs works."""
    working = {finding.name for finding in findings if finding.state == 'ok'}
    return {task: working.issuperset(parts) for task, parts in TASKS.items()}


@click.command()
@click.option('--json', 'as_json', is_flag=True, help='Print JSON.')
def command(as_json: bool) -> None:
    """Check the installation and print fixes.

    Exit with status 1 if detection, segmentation or pose estimation cannot run.
    """
    click.echo('Probing, some seconds ...', err=True)
    findings = examine()
    tasks = runnable(findings)
    if as_json:
        parts = [asdict(finding) for finding in findings]
        click.echo(json.dumps({'parts': parts, 'tasks': tasks}, indent=2))
    else:
        for finding in findings:
            color = {'ok': 'green', 'blocked': 'yellow'}.get(finding.state, 'red')
            state = click.style(f'{finding.state:8}', color)
            click.echo(f'{finding.name:21} {state} {finding.found}')
            if finding.fix:
                click.echo(f'    fix: {finding.fix}')
        for task, works in tasks.items():
            state = click.style('can run', 'green') if works else click.style('cannot run', 'red')
            click.echo(f'{task}: {state}')
    if not all(works for task, works in tasks.items() if task not in EXTRAS):
        raise SystemExit(1)
