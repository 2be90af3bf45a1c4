#!/usr/bin/env python3
"""Build what would be released, check it, and try it from the wheel alone.

Run by ``make release-check`` in the environment of the stack. Nothing is uploaded, and nothing is
left but .venv-release with the tools for building.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / 'requirements' / 'release.txt'
GENERATED = r'PKG-INFO|setup\.cfg|mmuniformer\.egg-info/.*'
TRIAL = """
import mmuniformer
from importlib.resources import files
from mmuniformer.apis.config import find_config
assert files('mmuniformer').joinpath('py.typed').is_file()
assert '/.mim/configs/' in str(find_config('upernet_uniformer-nano_toy-128x128'))
mmuniformer.UniFormer("nano")
print(mmuniformer.__file__)
"""


class Refused(Exception):
    """The release has a fault; the message names it."""


def run(*command: object, cwd: Path = ROOT, status: int = 0) -> str:
    """Run a command, and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode != status:
        tail = '\n'.join((done.stdout + done.stderr).splitlines()[-15:])
        raise Refused(f'{" ".join(map(str, command))} ended with {done.returncode}:\n{tail}')
    return done.stdout


def check_version(version: str, changelog: str, citation: str, tags: list[str]) -> None:
    """Refuse a version that changelog, citation file and tags do not share."""
    first = re.search(r'(?m)^## (\S+)', changelog)
    if not first or first[1] != version:
        raise Refused(f'CHANGELOG.md starts with {first and first[1]}, not with {version}')
    if not re.search(rf'(?m)^version: {re.escape(version)}$', citation):
        raise Refused(f'CITATION.cff has another version than {version}')
    wrong = [tag for tag in tags if re.match(r'v\d', tag) and tag != f'v{version}']
    if wrong:
        raise Refused(f'this commit is tagged {", ".join(wrong)}; its version is {version}')


def build(folder: Path) -> tuple[Path, Path]:
    """Return a source distribution, and the wheel that is built from it."""
    tools = ROOT / '.venv-release'
    python = tools / 'bin' / 'python'
    if not python.exists():
        venv.create(tools, with_pip=True)
    run(python, '-m', 'pip', 'install', '-q', '-r', REQUIREMENTS)
    run(python, '-m', 'build', '--no-isolation', '--outdir', folder)
    run(python, '-m', 'twine', 'check', '--strict', *folder.iterdir())
    return next(folder.glob('*.tar.gz')), next(folder.glob('*.whl'))


def check_contents(sdist: Path, wheel: Path) -> None:
    """Refuse files that git does not know, and a wheel that lacks some."""
    tracked = set(run('git', 'ls-files').splitlines())
    with tarfile.open(sdist) as tar:
        names = {m.name.partition('/')[2] for m in tar.getmembers() if m.isfile()}
    if unknown := {n for n in names - tracked if not re.fullmatch(GENERATED, n)}:
        raise Refused(f'{sdist.name} holds files that git does not know: {sorted(unknown)}')
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in tracked if name.startswith('mmuniformer/')}
    wanted |= {f'mmuniformer/.mim/{n}' for n in tracked if n.startswith(('configs/', 'requirem'))}
    if missing := wanted - held:
        raise Refused(f'{wheel.name} lacks {sorted(missing)}')


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install the wheel in a fresh environment that sees this one's stack, and use it."""
    venv.create(folder, with_pip=True)
    python = folder / 'bin' / 'python'
    site = Path(run(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    run(python, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', wheel)
    (site / 'stack.pth').write_text(sysconfig.get_path('purelib'))
    if not Path(run(python, '-c', TRIAL, cwd=folder).strip()).is_relative_to(site):
        raise Refused(f'{wheel.name} is not what is imported')
    command = folder / 'bin' / 'mmuniformer'
    run(command, '--version', cwd=folder)
    run(command, 'complexity', 'upernet_uniformer-nano_toy-128x128', cwd=folder)
    findings = json.loads(run(command, 'doctor', '--json', cwd=folder))
    if broken := [part for part in findings['parts'] if part['state'] != 'ok']:
        raise Refused(f'doctor: {broken}')


def main() -> int:
    """Return the exit status."""
    sys.path.insert(0, str(ROOT))
    from mmuniformer.version import __version__ as version

    try:
        texts = [(ROOT / name).read_text() for name in ('CHANGELOG.md', 'CITATION.cff')]
        tags = run('git', 'tag', '--points-at', 'HEAD').split()
        check_version(version, *texts, tags)
        print(f'version {version}: changelog, citation and tags agree')
        with tempfile.TemporaryDirectory() as folder:
            sdist, wheel = build(Path(folder, 'dist'))
            check_contents(sdist, wheel)
            print(f'{sdist.name}, {wheel.name}: built, sound, complete')
            try_wheel(wheel, Path(folder, 'venv'))
            print('the wheel alone: imports, counts, doctor finds it sound')
    except Refused as error:
        print(error)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
