"""Doctor: every known symptom has its fix, and no fix installs one stack over another."""

import json
import re
import sys
import textwrap

import pytest
import torch
from click.testing import CliRunner

from mmuniformer.cli import doctor
from mmuniformer.compat import TORCH_HAS_ALLOW_LIST

TASKS = ('det', 'seg', 'pose', 'cls', 'video')


@pytest.fixture
def outcomes(monkeypatch):
    """Outcomes of the probes as ('found', 'error') by part; nothing is run."""
    given = {name: ('1.0', '') for name in doctor.PARTS}
    by_part = {id(part): name for name, part in doctor.PARTS.items()}
    monkeypatch.setattr(doctor, '_probe', lambda part: given[by_part[id(part)]])
    return given


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Let exactly the distributions of the given names and versions be installed."""

    def install(**versions):
        for name, version in versions.items():
            folder = tmp_path / f'{name}-{version}.dist-info'
            folder.mkdir()
            lines = f'Metadata-Version: 2.1\nName: {name.replace("_", "-")}\nVersion: {version}\n'
            (folder / 'METADATA').write_text(lines)
        monkeypatch.setattr(sys, 'path', [str(tmp_path)])

    return install


def examine(outcomes, **errors):
    """Return findings by name where the given parts fail and, as a result, those that need them."""
    broken = set()
    for name, part in doctor.PARTS.items():
        error = errors.get(name.replace(' ', '_'), '')
        if broken & set(part.needs):
            error = error or 'ImportError: a part that this one needs is broken'
        if error:
            broken.add(name)
            outcomes[name] = ('', error)
    return {finding.name: finding for finding in doctor.examine()}


# symptom: (part, its error, what the fix has to name)
SYMPTOMS = {
    'operators missing': (
        'mmcv',
        "ModuleNotFoundError: No module named 'mmcv._ext'",
        ['--force-reinstall', '--no-cache-dir', '--no-build-isolation mmcv==2.1.0'],
    ),
    'mmcv too new': (
        'mmdet',
        'AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, '
        '<2.2.0.',
        ['--force-reinstall', 'mmcv==2.1.0'],
    ),
    'mmpose absent': (
        'mmpose',
        "ModuleNotFoundError: No module named 'mmpose'",
        ['--no-deps mmpose==1.3.2', 'json-tricks munkres', '--no-binary xtcocotools'],
    ),
    'mmpose without mmdet': (
        'mmpose',
        "ModuleNotFoundError: No module named 'mmdet'",
        ['pip install mmdet==3.3.0'],
    ),
    'xtcocotools for numpy 1': (
        'xtcocotools',
        'ValueError: numpy.dtype size changed, may indicate binary incompatibility.',
        ['cython', '--no-build-isolation', '--no-binary xtcocotools xtcocotools==1.14.3'],
    ),
    'torchvision absent': (
        'torchvision',
        "ModuleNotFoundError: No module named 'torchvision'",
        ["--no-deps 'torchvision==0.28.*'"],
    ),
    'ftfy': ('mmseg', "ModuleNotFoundError: No module named 'ftfy'", ['pip install ftfy regex']),
    'setuptools 82': (
        'mim',
        "ModuleNotFoundError: No module named 'pkg_resources'",
        ['pip install setuptools==80.10.2'],
    ),
    'mim absent': (
        'mim',
        "ModuleNotFoundError: No module named 'mim'",
        ['--no-deps openmim==0.3.9', 'model-index'],
    ),
    'checkpoints': (
        'training checkpoints',
        '_pickle.UnpicklingError: Weights only load failed. GLOBAL HistoryBuffer',
        ['no-build-isolation .', 'up-to-date checkout'],
    ),
    'torch absent': (
        'torch',
        "ModuleNotFoundError: No module named 'torch'",
        ['pip install torch==2.13.0', 'CPU index'],
    ),
    'no window system': (
        'mmcv',
        'ImportError: libGL.so.1: cannot open shared object file',
        ['pip uninstall -y opencv-python', 'opencv-python-headless'],
    ),
    'some other module': (
        'mmdet',
        "ModuleNotFoundError: No module named 'terminaltables'",
        ['pip install terminaltables==3.1.10'],
    ),
    'a module of an unknown package': (
        'mmdet',
        "ModuleNotFoundError: No module named 'yaml'",
        ['install the package that has yaml'],
    ),
}


@pytest.mark.parametrize('symptom', SYMPTOMS)
def test_symptom_has_its_fix(outcomes, install, symptom):
    install(torch='2.13.0+cpu', mmengine='0.10.7')
    name, error, named = SYMPTOMS[symptom]
    finding = examine(outcomes, **{name.replace(' ', '_'): error})[name]
    absent = f"'{name}'" in error
    assert (finding.state, finding.found) == ('absent' if absent else 'broken', error)
    for words in named:
        assert words in finding.fix
    assert '{' not in finding.fix


@pytest.mark.parametrize('build', ['CPU', '12.1'])
def test_torchvision_of_the_fix_pairs_with_the_installed_torch(outcomes, install, build):
    install(torch='2.1.2')
    outcomes['torch'] = (f'2.1.2 ({build} build), no GPU', '')
    error = 'RuntimeError: operator torchvision::nms does not exist'
    fix = examine(outcomes, torchvision=error)['torchvision'].fix
    assert "--force-reinstall --no-deps 'torchvision==0.16.*' " in fix
    assert ('--index-url https://download.pytorch.org/whl/cpu' in fix) == (build == 'CPU')


def test_broken_torchvision_blocks_mmengine_and_an_absent_one_only_mmpose(outcomes):
    broken = 'RuntimeError: operator torchvision::nms does not exist'
    findings = examine(outcomes, torchvision=broken)
    assert findings['mmengine'].state == 'blocked'
    for part in doctor.PARTS:
        outcomes[part] = ('1.0', '')
    absent = "ModuleNotFoundError: No module named 'torchvision'"
    outcomes |= {'torchvision': ('', absent), 'mmpose': ('', absent)}
    findings = {finding.name: finding for finding in doctor.examine()}
    assert [name for name, f in findings.items() if f.state != 'ok'] == ['torchvision', 'mmpose']
    assert findings['mmpose'].found == 'waits for torchvision'
    assert doctor.runnable(list(findings.values())) == {task: task != 'pose' for task in TASKS}


UPSTREAM = {'mmengine': '0.10.7', 'mmcv': '2.1.0', 'mmdet': '3.3.0', 'mmsegmentation': '1.2.2'}
FORKS = {'onedl_mmengine': '0.10.12', 'onedl_mmcv': '2.3.6', 'onedl_mmdetection': '3.5.1'}


@pytest.mark.parametrize(
    ('distributions', 'state', 'found'),
    [
        ({}, 'ok', 'none'),
        (UPSTREAM | {'mmpose': '1.3.2'}, 'ok', 'upstream'),
        (FORKS | {'mmpose': '1.3.2'}, 'ok', 'onedl forks'),
        (
            FORKS | {'mmdet': '3.3.0'},
            'broken',
            'mixed: mmdet of upstream, onedl-mmcv, onedl-mmdetection, onedl-mmengine of the forks',
        ),
    ],
)
def test_stack_is_named(outcomes, install, distributions, state, found):
    install(**distributions)
    stack = doctor.examine()[0]
    assert (stack.name, stack.state, stack.found) == ('stack', state, found)
    assert ('new virtual environment' in stack.fix) == (state == 'broken')


ABSENT = {name: f"ModuleNotFoundError: No module named '{name}'" for name in doctor.PARTS}
EXAMPLES = (
    'MMCV==2.2.0 is used but incompatible',
    "No module named 'pkg_resources'",
    "No module named 'imgaug'",
    "No module named 'mmcv._ext'",
)
OVER_FORKS = re.compile(r'(?<![\w-])(mmengine|mmcv|mmdet|mmsegmentation|openmim)\b')


@pytest.mark.parametrize('name', list(doctor.PARTS))
def test_no_fix_installs_one_stack_over_the_other(outcomes, install, name):
    install(**FORKS)
    for error in ('OSError: broken', ABSENT[name], *EXAMPLES):
        outcomes[name] = ('', error)
        (finding,) = [finding for finding in doctor.examine() if finding.name == name]
        assert finding.state != 'ok'
        assert not OVER_FORKS.search(finding.fix.partition('  (')[0]), finding.fix
    install(mmdet='3.3.0')  # a mixture
    for error in ('OSError: broken', ABSENT[name], *EXAMPLES):
        outcomes[name] = ('', error)
        (finding,) = [finding for finding in doctor.examine() if finding.name == name]
        assert not OVER_FORKS.search(finding.fix.partition('  (')[0]), finding.fix
        assert 'onedl' not in finding.fix


def test_fixes_of_the_forks_install_the_forks(outcomes, install):
    install(**FORKS)
    for name in ('mmpretrain', 'mmaction'):  # they take upstream's mmcv only
        assert 'another environment' in examine(outcomes, **{name: ABSENT[name]})[name].fix
    findings = examine(outcomes, mmcv=ABSENT['mmcv'], mim=ABSENT['mim'])
    assert '--no-build-isolation onedl-mmcv==2.3.6 ' in findings['mmcv'].fix
    assert '--no-deps onedl-mim==0.5.1 ' in findings['mim'].fix


def test_parts_that_need_a_broken_one_wait_for_it(outcomes):
    findings = examine(outcomes, torch=ABSENT['torch'])
    assert (findings['mmdet'].state, findings['mmdet'].found) == ('blocked', 'waits for mmcv')
    assert findings['mmdet'].fix == ''
    assert [name for name, finding in findings.items() if finding.fix] == ['torch']


@pytest.mark.parametrize(
    ('broken', 'remaining'),
    [
        ('mmdet', {'seg', 'pose', 'cls', 'video'}),
        ('mmseg', {'det', 'pose', 'cls', 'video'}),
        ('mmpose', {'det', 'seg', 'cls', 'video'}),
        ('xtcocotools', {'det', 'seg', 'cls', 'video'}),
        ('mmpretrain', {'det', 'seg', 'pose', 'video'}),
        ('mmaction', {'det', 'seg', 'pose', 'cls'}),
        ('mmcv', set()),
        ('torch', set()),
        ('mmuniformer', set()),
        ('training checkpoints', set()),
        ('mim', set(TASKS)),
    ],
)
def test_task_runs_where_all_it_needs_works(outcomes, broken, remaining):
    findings = examine(outcomes, **{broken.replace(' ', '_'): 'ImportError: broken'})
    tasks = doctor.runnable(list(findings.values()))
    assert {task for task, works in tasks.items() if works} == remaining


def test_status_and_json(outcomes):
    sound = CliRunner().invoke(doctor.command, ['--json'])
    assert sound.exit_code == 0
    assert json.loads(sound.stdout)['tasks'] == dict.fromkeys(TASKS, True)
    outcomes['mmseg'] = ('', "ModuleNotFoundError: No module named 'ftfy'")
    done = CliRunner().invoke(doctor.command, ['--json'])
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report['tasks'] == {task: task != 'seg' for task in TASKS}
    (mmseg,) = [part for part in report['parts'] if part['name'] == 'mmseg']
    assert (mmseg['state'], mmseg['fix']) == ('broken', 'pip install ftfy regex')


def test_text_names_every_part_and_keeps_a_fix_on_one_line(outcomes):
    outcomes['mmcv'] = ('', "ModuleNotFoundError: No module named 'mmcv._ext'")
    done = CliRunner().invoke(doctor.command)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    for name in ('stack', *doctor.PARTS):
        assert any(line.startswith(f'{name} ') for line in lines), name
    at = lines.index(
        "mmcv                  broken   ModuleNotFoundError: No module named 'mmcv._ext'"
    )
    assert lines[at + 1].startswith('    fix: pip install setuptools==80.10.2 ninja && pip install')
    assert re.search(r' (mmcv==2.1.0|onedl-mmcv==2.3.6) ', lines[at + 1])  # the stack it runs on
    assert 'det: cannot run' in lines


def fake_module(folder, name, body):
    package = folder / name
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(textwrap.dedent(body))


def test_probe_survives_whatever_a_part_does(monkeypatch):
    def probe(code):
        return doctor._probe(doctor.Part(code, ''))

    assert probe('print("noise"); print("1.2")') == ('1.2', '')
    assert probe('raise OSError("libx.so is gone")') == ('', 'OSError: libx.so is gone')
    assert probe('import sys; sys.exit(3)') == ('', 'exit status 3')
    killed = probe('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)')
    assert killed == ('', 'its process died of signal 11')
    monkeypatch.setattr(doctor, 'PROBE_SECONDS', 0.2)
    assert probe('import time; time.sleep(60)') == ('', 'no answer within 0.2 s')


@pytest.mark.slow
@pytest.mark.skipif(not TORCH_HAS_ALLOW_LIST, reason='mmengine is handed another torch.load')
def test_loader_that_runs_code_is_found_out():
    part = doctor.PARTS['training checkpoints']
    free = (
        'import torch; load = torch.load\n'
        'torch.load = lambda *args, **named: load(*args, **{**named, "weights_only": False})\n'
    )
    found = doctor._probe(part._replace(code=free + part.code))
    assert found == ('', 'a checkpoint ran code of its own')


def test_classification_is_an_extra(outcomes, install):
    install(**UPSTREAM)
    outcomes['mmaction'] = ('', "ModuleNotFoundError: No module named 'einops'")
    done = CliRunner().invoke(doctor.command, ['--json'])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report['tasks'] == {task: task != 'video' for task in TASKS}
    (part,) = [part for part in report['parts'] if part['name'] == 'mmaction']
    assert part['fix'] == 'pip install einops==0.8.2'


@pytest.mark.slow
def test_doctor_runs_with_everything_broken(run_python, tmp_path):
    fake = tmp_path / 'fake'
    fake_module(fake, 'torch', 'raise OSError("libtorch_cpu.so: cannot open shared object file")')
    fake_module(fake, 'mim', 'raise ModuleNotFoundError("No module named \'pkg_resources\'")')
    fake_module(fake, 'xtcocotools', 'raise ValueError("numpy.dtype size changed")')
    main = "from mmuniformer.cli import main; main(['doctor', '--json'])"
    done = run_python('-c', main, path=fake)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    report = json.loads(done.stdout)
    assert report['tasks'] == dict.fromkeys(TASKS, False)
    states = {part['name']: part['state'] for part in report['parts']}
    assert states['python'] == states['numpy'] == 'ok'
    broken = {name for name, state in states.items() if state == 'broken'}
    assert broken == {'torch', 'mim', 'xtcocotools'}
    fixes = {part['name']: part['fix'] for part in report['parts']}
    assert 'setuptools' in fixes['mim']


@pytest.mark.slow
@pytest.mark.frameworks
def test_doctor_finds_this_environment_sound(run_python):
    done = run_python('-c', "from mmuniformer.cli import main; main(['doctor', '--json'])")
    report = json.loads(done.stdout)
    assert [part for part in report['parts'] if part['state'] != 'ok'] == []
    found = {part['name']: part['found'] for part in report['parts']}
    assert found['training checkpoints'] == 'load; code in them is refused'
    assert found['torch'].startswith(f'{torch.__version__} (')
    assert done.returncode == 0
