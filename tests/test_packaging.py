"""The wheel, the pins, the steps of the install and the two commands around them."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path

import pytest
import torch
import yaml

from mmuniformer.apis.config import load_config
from mmuniformer.apis.models import build_model
from mmuniformer.compat import TORCH_HAS_ALLOW_LIST


@pytest.fixture(scope='module')
def bootstrap(repository):
    """``tools/dev/bootstrap.py`` as a module."""
    path = repository / 'tools' / 'dev' / 'bootstrap.py'
    spec = importlib.util.spec_from_file_location('bootstrap', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['bootstrap'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['bootstrap']


def copy_checkout(repository, target):
    """Copy what the build reads, so that it leaves nothing in the checkout."""
    target.mkdir()
    for name in ('mmuniformer', 'configs', 'tools', 'requirements'):
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(repository / name, target / name, ignore=ignored)
    for name in (
        *('setup.py', 'pyproject.toml', 'MANIFEST.in', 'model-index.yml', 'README.md', 'LICENSE'),
        'mmuniformer_command.py',
    ):
        shutil.copyfile(repository / name, target / name)


@pytest.fixture(scope='module')
def wheel(repository, tmp_path_factory):
    """The built wheel, from a checkout whose build folder holds a file of an earlier state."""
    folder = tmp_path_factory.mktemp('wheel')
    copy_checkout(repository, folder / 'checkout')
    stale = folder / 'checkout' / 'build' / 'lib' / 'mmuniformer'
    (stale / '.mim' / 'configs').mkdir(parents=True)
    (stale / 'deleted.py').write_text('')
    (stale / '.mim' / 'configs' / 'deleted.py').write_text('')
    command = [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation']
    command += ['--no-index', '-w', str(folder), str(folder / 'checkout')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob('*.whl')
    return zipfile.ZipFile(path)


def files_under(folder):
    files = (path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)) for path in files if '__pycache__' not in path.parts}


def test_wheel_carries_what_mim_and_doctor_read(wheel, repository):
    names = set(wheel.namelist())
    prefix = 'mmuniformer/.mim/'
    carried = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    expected = {f'configs/{name}' for name in files_under(repository / 'configs')}
    expected |= {f'requirements/{name}' for name in files_under(repository / 'requirements')}
    assert carried == expected | {'tools/train.py', 'tools/test.py', 'model-index.yml'}
    assert all(info.external_attr >> 16 & 0o170000 != 0o120000 for info in wheel.infolist())


def test_doctor_of_the_wheel_knows_the_pinned_versions(wheel, tmp_path, run_python):
    wheel.extractall(tmp_path)
    code = (
        'from mmuniformer.cli import doctor; print(doctor.__file__, doctor._packages({})["mmcv"])'
    )
    file, requirement = run_python('-c', code, path=tmp_path).stdout.split()
    assert Path(file).is_relative_to(tmp_path)
    assert requirement == 'mmcv==2.1.0'


def test_wheel_holds_the_package_and_nothing_stale(wheel, repository):
    names = {n for n in wheel.namelist() if not n.startswith('mmuniformer/.mim/')}
    modules = {n.removeprefix('mmuniformer/') for n in names if n.startswith('mmuniformer/')}
    assert modules == files_under(repository / 'mmuniformer')
    others = {name.partition('/')[0] for name in names} - {'mmuniformer'}
    assert [n for n in others if not n.endswith('.dist-info')] == ['mmuniformer_command.py']
    assert not [name for name in wheel.namelist() if 'deleted' in name]


def test_wheel_metadata_leaves_the_frameworks_to_the_user(wheel):
    (path,) = [name for name in wheel.namelist() if name.endswith('/METADATA')]
    metadata = Parser().parsestr(wheel.read(path).decode())
    assert metadata['Name'] == 'mmuniformer'
    required = [line for line in metadata.get_all('Requires-Dist') if 'extra ==' not in line]
    names = sorted(line.split('>')[0].strip() for line in required)
    assert names == ['click', 'filelock', 'numpy', 'rich', 'torch']
    assert not [line for line in metadata.get_all('Requires-Dist') if line.startswith('mm')]


def test_wheel_has_the_command_and_the_license(wheel):
    (entry,) = [name for name in wheel.namelist() if name.endswith('entry_points.txt')]
    assert 'mmuniformer = mmuniformer_command:main' in wheel.read(entry).decode()
    (license_,) = [name for name in wheel.namelist() if name.endswith('LICENSE')]
    assert b'Apache License' in wheel.read(license_)[:200]


def test_wheel_names_its_types_and_its_homes(wheel):
    assert 'mmuniformer/py.typed' in wheel.namelist()
    (path,) = [name for name in wheel.namelist() if name.endswith('/METADATA')]
    urls = Parser().parsestr(wheel.read(path).decode()).get_all('Project-URL')
    assert 'Paper, https://arxiv.org/abs/2201.09450' in urls


@pytest.mark.integration
@pytest.mark.frameworks
def test_wheel_alone_predicts_with_a_shipped_config(wheel, tmp_path, toy_root, run_python):
    place = tmp_path / 'place'
    command = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-index', '--no-deps']
    subprocess.run([*command, '--target', place, wheel.filename], check=True)
    code = (
        'import sys, mmuniformer; from mmuniformer.cli import main\n'
        'print(mmuniformer.__file__, flush=True); main(sys.argv[1:])'
    )
    image = next((toy_root / 'coco' / 'val2017').glob('*.jpg'))
    name = 'upernet_uniformer-nano_toy-128x128'
    weights = tmp_path / 'random.pth'
    torch.save(build_model(load_config(name)).state_dict(), weights)
    done = run_python('-c', code, 'predict', 'seg', name, weights, image, path=place)
    assert done.returncode == 0, done.stderr
    file, *said = done.stdout.splitlines()
    assert Path(file).is_relative_to(place)
    assert said[-1].startswith('1 images, ')
    assert len(list((tmp_path / 'predictions').rglob('*.png'))) == 1


def test_issue_form_asks_for_what_doctor_says(repository):
    form = yaml.safe_load((repository / '.github' / 'ISSUE_TEMPLATE' / 'bug.yml').read_text())
    asked = {part.get('id'): part for part in form['body']}
    assert 'mmuniformer doctor --json' in asked['doctor']['attributes']['label']
    assert asked['doctor']['validations']['required']


def test_config_names_are_unique(repository):
    """Mim looks a config up by its file name in the whole package; two hits are an error."""
    configs = [p.name for p in repository.glob('configs/**/*.py') if '_base_' not in p.parts]
    modules = [path.name for path in repository.glob('mmuniformer/**/*.py')]
    bases = [path.name for path in repository.glob('configs/**/_base_/**/*.py')]
    assert configs
    assert [name for name, hits in Counter(configs).items() if hits > 1] == []
    assert set(configs) & set(modules + bases) == set()


STACKS = ('pinned', 'onedl', 'old')


def pins_of(bootstrap, stack='pinned'):
    """All packages of a stack and their versions."""
    sections = bootstrap.read_stack(stack)
    return {name: version for pins in sections.values() for name, version in pins.items()}


def this_stack():
    """The stack that the suite runs on."""
    names = {each.metadata['Name'] for each in importlib.metadata.distributions()}
    return 'onedl' if 'onedl-mmcv' in names else 'pinned' if TORCH_HAS_ALLOW_LIST else 'old'


@pytest.mark.parametrize('python', ['3.10', '3.13'])
@pytest.mark.parametrize('stack', STACKS)
def test_every_package_is_pinned_exactly_and_once(bootstrap, monkeypatch, stack, python):
    monkeypatch.setattr(bootstrap, 'VERSION', python)
    sections = bootstrap.read_stack(stack)
    left_out = {'cls', 'video'} if stack == 'onedl' else set()
    assert set(bootstrap.STEPS) - set(sections) == left_out
    pins = pins_of(bootstrap, stack)
    assert sum(map(len, sections.values())) == len(pins)
    assert [name for name, version in pins.items() if not version[0].isdigit()] == []
    assert set(pins) & {'opendatalab', 'chumpy', 'opencv-python', 'imgaug'} == set()
    assert 77 <= int(pins['setuptools'].split('.')[0]) <= 80
    names = {'mmengine', 'mmcv', 'mmdetection', 'mmsegmentation', 'mim'}
    forks = {f'onedl-{name}' for name in names}
    assert set(pins) & forks == (forks if stack == 'onedl' else set())
    upstream = {'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'openmim'}
    assert set(pins) & upstream == (set() if stack == 'onedl' else upstream)
    assert pins['mmpose']


@pytest.mark.parametrize('python', ['3.11', '3.13'])
def test_all_pins_but_those_of_torch_have_hashes(bootstrap, monkeypatch, python):
    monkeypatch.setattr(bootstrap, 'VERSION', python)
    pins = pins_of(bootstrap)
    text = bootstrap.HASHES.read_text()
    checked = {name: pins[name] for name in pins if name not in bootstrap.UNHASHED}
    entries = re.findall(r'(?m)^\S+==\S+ \\(?:\n +--hash=sha256:[0-9a-f]{64}(?: \\)?)+$',
                         bootstrap.hashed(checked, text))  # fmt: skip
    assert len(entries) == len(checked)
    assert not re.search(r'://|--\S*index', text)
    with pytest.raises(bootstrap.StepError, match=r'no hashes of pyyaml==0\.1: .*`make hashes`'):
        bootstrap.hashed(checked | {'PyYAML': '0.1'}, text)


def test_old_stack_is_the_lowest_that_is_promised(bootstrap, repository):
    text = (repository / 'pyproject.toml').read_text()
    lowest = re.search(r'"torch>=([\d.]+)"', text)[1]
    assert pins_of(bootstrap, 'old')['torch'].startswith(f'{lowest}.')
    first, last = bootstrap.PYTHONS['pinned']
    assert f'requires-python = ">={first[0]}.{first[1]}"' in text
    named = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', text)
    assert [int(minor) for minor in named] == list(range(first[1], last[1] + 1))


@pytest.mark.parametrize('stack', STACKS)
def test_torchvision_pairs_with_torch(bootstrap, stack):
    pins = pins_of(bootstrap, stack)
    torch, torchvision = (pins[name].split('.') for name in ('torch', 'torchvision'))
    assert torch[0] == '2'
    assert int(torchvision[1]) == int(torch[1]) + 15


def test_sections_are_read_without_comments(bootstrap):
    text = '# intro\n\n# [torch] first\ntorch==2.1  # cpu\n\n# [mmcv]\n# slow\nmmcv==1.0\n'
    assert bootstrap.read_sections(text) == {'torch': {'torch': '2.1'}, 'mmcv': {'mmcv': '1.0'}}


def test_installed_stack_is_one_of_ours(bootstrap):
    """The suite runs in the environment that the steps made."""
    site = Path(next(p for p in sys.path if p.endswith('site-packages')))
    installed = bootstrap.installed_versions(site)
    for package, version in pins_of(bootstrap, this_stack()).items():
        assert installed[bootstrap.normalize(package)] == version, package


TORCHVISION = """
import torch
torch.ops.load_library  # what the compiled operators need
torch.library.register_fake('torchvision::nms')(lambda dets, scores, iou_threshold: dets)
"""


def test_torchvision_beside_a_cpu_torch_gets_its_schemas_once(bootstrap, tmp_path, run_python):
    environment = bootstrap.Environment(tmp_path / 'env')
    package = environment.site / 'torchvision'
    package.mkdir(parents=True)
    file = package / '__init__.py'
    file.write_text(TORCHVISION)

    def probe(code):
        return run_python('-c', code, path=environment.site).returncode == 0

    environment.probe = probe
    assert not probe('import torchvision')
    bootstrap.declare_operators(environment)
    assert file.read_text() == bootstrap.TORCHVISION_HEAD + TORCHVISION
    assert probe('import torchvision')
    environment.probe = lambda code: False
    bootstrap.declare_operators(environment)
    assert file.read_text() == bootstrap.TORCHVISION_HEAD + TORCHVISION


def test_torchvision_that_imports_stays_as_it_is(bootstrap, tmp_path):
    environment = bootstrap.Environment(tmp_path / 'env')
    environment.probe = lambda code: code == 'import torchvision'
    bootstrap.declare_operators(environment)
    assert not environment.site.exists()


@pytest.mark.slow
def test_torchvision_transforms_run(run_python):
    code = (
        'import torch; from torchvision.transforms import ToPILImage\n'
        'print(ToPILImage()(torch.full((1, 2, 3), 0.5)).size)'
    )
    done = run_python('-c', code)
    assert done.stdout == '(3, 2)\n', done.stderr


# requirements/constraints.txt says why each of these stays.
EXPLAINED = {
    ('mmcv', 'opencv-python'),
    ('mmengine', 'opencv-python'),
    ('mmpose', 'opencv-python'),
    ('mmpose', 'chumpy'),
    ('mmaction2', 'opencv-contrib-python'),
    ('mmaction2', 'decord'),
    ('mmpretrain', 'modelindex'),
    ('openmim', 'opendatalab'),
    ('lvis', 'opencv-python'),
}
EXPLAINED_ON = {
    'pinned': set(),
    'onedl': {
        ('onedl-mmsegmentation', 'opencv-python'),
        ('onedl-mmcv', 'opencv-python'),
        ('onedl-mim', 'opendatalab'),
        ('imaug', 'opencv-python'),
        ('imagecorruptions-imaug', 'opencv-python'),
        ('imagecorruptions-imaug', 'numba'),
    },
    'old': set(),
}
OTHER_VERSION = ('imaug 0.4.3 has requirement opencv-', 'onedl-mim 0.5.1 has requirement pandas')


@pytest.mark.integration
def test_pip_check_reports_only_what_is_explained(bootstrap):
    command = [sys.executable, '-m', 'pip', 'check']
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.findall(
        r'^(\S+) \S+ requires (\S+), which is not installed', done.stdout, re.MULTILINE
    )
    ignored = ('No broken requirements found.', *OTHER_VERSION)
    complaints = [line for line in done.stdout.splitlines() if not line.startswith(ignored)]
    assert len(found) == len(complaints), done.stdout
    # A CUDA build may stand without its libraries (MMUNIFORMER_FIX_TORCH).
    cuda = {pair for pair in found if pair[0] == 'torch' and re.match('nvidia-|triton', pair[1])}
    assert set(found) - cuda <= EXPLAINED | EXPLAINED_ON[this_stack()]
    for pair in EXPLAINED:
        assert all(name in bootstrap.CONSTRAINTS.read_text() for name in pair)


def test_digest_sees_changes_additions_and_removals(bootstrap, tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    folder = tmp_path / 'package'
    folder.mkdir()
    (folder / 'a.py').write_text('1')
    seen = [bootstrap.digest([folder])]
    (folder / 'b.py').write_text('2')
    seen.append(bootstrap.digest([folder]))
    (folder / 'a.py').write_text('3')
    seen.append(bootstrap.digest([folder]))
    (folder / 'a.py').rename(folder / 'c.py')
    seen.append(bootstrap.digest([folder]))
    assert len(set(seen)) == 4
    (folder / '__pycache__').mkdir()
    (folder / '__pycache__' / 'c.pyc').write_text('4')
    assert bootstrap.digest([folder]) == seen[-1]


@pytest.fixture
def environment(bootstrap, tmp_path, monkeypatch):
    """An environment that only notes which steps would run."""
    found = bootstrap.Environment(tmp_path / 'env')
    found.folder.mkdir()
    found.ran = []
    monkeypatch.setattr(found, 'run', lambda title, command, fix: found.ran.append(title))
    monkeypatch.setattr(found, 'probe', lambda code: True)
    return found


@pytest.fixture
def installed(bootstrap, monkeypatch):
    """What the environment is taken to hold: at first all that is pinned."""
    pins = pins_of(bootstrap)
    versions = {bootstrap.normalize(name): version for name, version in pins.items()}
    monkeypatch.setattr(bootstrap, 'installed_versions', lambda site: versions)
    return versions


def test_second_install_runs_nothing(bootstrap, environment, installed, capsys):
    bootstrap.install_stack(environment)
    assert 'already installed' in capsys.readouterr().out
    bootstrap.install_stack(environment)
    assert capsys.readouterr().out == 'stack: ready\n'
    assert environment.ran == []


def test_only_the_step_that_is_off_runs(bootstrap, environment, installed):
    bootstrap.install_stack(environment)
    installed['mmcv'] = '2.2.0'
    del installed['openmim']
    bootstrap.install_stack(environment)
    names = [title.split("'")[1] for title in environment.ran if 'probing' not in title]
    assert names == ['mmcv', 'mim']


def test_step_whose_probe_fails_runs_again(bootstrap, environment, installed, monkeypatch):
    monkeypatch.setattr(environment, 'probe', lambda code: code != 'import mmcv.ops')
    bootstrap.install_stack(environment)
    assert re.fullmatch(r"step 6/\d+ 'mmcv'", environment.ran[0])
    assert len(environment.ran) == 2


def test_package_is_installed_again_only_after_a_change(
    bootstrap, environment, installed, tmp_path, monkeypatch
):
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    monkeypatch.setattr(bootstrap, 'SOURCES', ('source.py',))
    (tmp_path / 'source.py').write_text('1')
    bootstrap.install_package(environment)
    installed['mmuniformer'] = '0.1.0'
    bootstrap.install_package(environment)
    assert len(environment.ran) == 1
    (tmp_path / 'source.py').write_text('2')
    bootstrap.install_package(environment)
    assert len(environment.ran) == 2


def test_failed_step_names_itself_its_output_and_the_fix(bootstrap, tmp_path):
    environment = bootstrap.Environment(tmp_path)
    command = [sys.executable, '-c', 'import sys; print("no space left"); sys.exit(3)']
    with pytest.raises(bootstrap.StepError) as caught:
        environment.run("step 4/8 'mmengine'", command, 'Make room.')
    message = str(caught.value)
    assert message.startswith("step 4/8 'mmengine' failed:\n    | no space left\n")
    assert str(tmp_path / 'install.log') in message
    assert message.endswith('fix: Make room.')


def test_progress_shows_compiled_files_or_the_last_line(bootstrap, tmp_path):
    environment = bootstrap.Environment(tmp_path)
    environment.log.write_text('$ pip\n  [1/77] c++ a.cpp\n  [12/77] c++ b.cpp\n  note: x\n')
    assert environment._progress(0) == 'compiled 12/77'
    environment.log.write_text('$ pip\nCollecting mmengine\n\n')
    assert environment._progress(0) == 'Collecting mmengine'


@pytest.mark.parametrize(
    ('stack', 'python', 'needed'),
    [('pinned', (3, 9, 1), '3.10 to 3.13'), ('old', (3, 12, 4), '3.10 to 3.11')],
)
def test_other_python_is_refused_with_the_fix(
    bootstrap, monkeypatch, capsys, stack, python, needed
):
    monkeypatch.setattr(sys, 'version_info', python)
    assert bootstrap.main(['--stack', stack]) == 1
    said = capsys.readouterr().out
    assert said.startswith(
        f'The {stack} stack needs Python {needed}, this is {".".join(map(str, python))}'
    )
    assert 'make PYTHON=python3.11' in said


@pytest.mark.parametrize(
    ('arguments', 'name'),
    [([], '.venv'), (['--stack', 'onedl'], '.venv-onedl'), (['--venv', 'own'], 'own')],
)
def test_folder_that_cannot_be_written_is_named(
    bootstrap, tmp_path, monkeypatch, capsys, arguments, name
):
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    (tmp_path / name).write_text('a file where the folder should be')
    assert bootstrap.main(arguments) == 1
    said = capsys.readouterr().out
    assert f'fix: make sure that {tmp_path / name} is writable' in said


@pytest.mark.parametrize(
    ('cores', 'gibibytes', 'jobs'), [(2, 24, 2), (16, 16, 5), (8, 2, 1), (None, 64, 1)]
)
def test_compile_jobs_fit_cores_and_memory(bootstrap, monkeypatch, cores, gibibytes, jobs):
    pages = {'SC_PHYS_PAGES': gibibytes * 2**18, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(bootstrap.os, 'sysconf', pages.get)
    monkeypatch.setattr(bootstrap.os, 'cpu_count', lambda: cores)
    assert bootstrap.compile_jobs() == jobs


def test_make_help_lists_the_targets(repository):
    done = subprocess.run(['make', '-C', repository], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith('  make ')]
    targets = [
        'help',
        'install',
        'quickstart',
        'quickstart-det',
        'quickstart-seg',
        'quickstart-pose',
        'quickstart-cls',
        'quickstart-video',
        'test',
        'test-core',
        'test-slow',
        'test-gpu',
        'performance',
        'release-check',
        'hashes',
        'licenses',
        'sbom',
        'hooks',
        'lint',
        'clean',
    ]
    assert [line[1] for line in lines] == targets
    assert all(line[2:] for line in lines)


@pytest.mark.parametrize('status', [0, 2])
def test_ci_fails_exactly_where_make_test_fails(repository, tmp_path, status):
    """And runs the stacks whose environments work."""
    checkout, venvs, bin = tmp_path / 'checkout', tmp_path / 'venvs', tmp_path / 'bin'
    (checkout / '.ci').mkdir(parents=True)
    shutil.copy(repository / '.ci' / 'run', checkout / '.ci' / 'run')
    for file, script in (
        (bin / 'make', f'echo "$@" "${{PYTEST_ADDOPTS-}}" in "$PWD"; exit {status}'),
        (venvs / 'venv-old' / 'bin' / 'python', 'true'),
        (checkout / '.venv-onedl' / 'bin' / 'python', 'false'),
    ):
        file.parent.mkdir(parents=True)
        file.write_text(f'#!/bin/sh\n{script}\n')
        file.chmod(0o755)
    environment = {**os.environ, 'PATH': f'{bin}{os.pathsep}{os.environ["PATH"]}'}
    environment |= {'MMUNIFORMER_VENVS': str(venvs)}
    environment.pop('PYTEST_ADDOPTS', None)
    command = [checkout / '.ci' / 'run']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == status
    lines = [f'test  in {checkout}']
    if not status:
        lines += [
            'stack onedl: not run, no environment is at hand (make install STACK=onedl makes one)',
            f"test STACK=old VENV={venvs}/venv-old -m 'stacks or not (slow or integration)' "
            f'in {checkout}',
        ]
    assert done.stdout.splitlines() == lines
