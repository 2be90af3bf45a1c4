"""Doctor: every row of the table of known symptoms, with modules that fail just so."""

import json
import re
import textwrap

import pytest
from click.testing import CliRunner

from mmuniformer.cli import doctor

TASKS = ('det', 'seg', 'pose')


def judge_all(**errors):
    """Return findings by name where the given parts fail, and those behind them, as in life."""
    findings = {}
    for name, part in doctor.PARTS.items():
        error = errors.get(name.replace(' ', '_'), '')
        if any(findings[need].state in ('broken', 'blocked') for need in part.needs):
            error = error or 'ImportError: something behind a broken part'
        findings[name] = doctor._judge(name, '' if error else '80.1', error, findings)
    return findings


@pytest.fixture
def outcomes(monkeypatch):
    """Let the parts end as given, ('found', 'error') by name, without running anything."""
    given = {name: ('80.1', '') for name in doctor.PARTS}
    by_part = {id(part): name for name, part in doctor.PARTS.items()}
    monkeypatch.setattr(doctor, '_try', lambda part: given[by_part[id(part)]])
    return given


# The rows of the table of symptoms: (part, its error, what the cure has to name).
ROWS = {
    'ops missing': (
        'mmcv ops',
        "ModuleNotFoundError: No module named 'mmcv._ext'",
        ['pip uninstall -y mmcv', 'setuptools>=77.0.3,<81', '--no-build-isolation mmcv==2.1.0'],
    ),
    'mmcv too new': (
        'mmdet',
        'AssertionError: MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, '
        '<2.2.0.',
        ['pip uninstall -y mmcv', 'mmcv==2.1.0'],
    ),
    'mmcv too new for mmseg': (
        'mmseg',
        'AssertionError: MMCV==2.2.0 is used but incompatible.',
        ['pip uninstall -y mmcv', 'mmcv==2.1.0'],
    ),
    'mmpose absent': (
        'mmpose',
        "ModuleNotFoundError: No module named 'mmpose'",
        ['--no-deps mmpose==1.3.2', 'json-tricks munkres', '--no-binary xtcocotools'],
    ),
    'xtcocotools for numpy 1': (
        'xtcocotools',
        'ValueError: numpy.dtype size changed, may indicate binary incompatibility.',
        ['cython', '--no-build-isolation', '--no-binary xtcocotools xtcocotools'],
    ),
    'mmpose without the stand-in': (
        'mmpose',
        "ModuleNotFoundError: No module named 'torchvision'",
        ['import mmuniformer first'],
    ),
    'torchvision for CUDA': (
        'torchvision',
        'RuntimeError: operator torchvision::nms does not exist',
        ['pip uninstall -y torchvision'],
    ),
    'ftfy': ('mmseg', "ModuleNotFoundError: No module named 'ftfy'", ['pip install ftfy regex']),
    'setuptools 82': (
        'mim',
        "ModuleNotFoundError: No module named 'pkg_resources'",
        ["'setuptools>=77.0.3,<81'"],
    ),
    'mim absent': (
        'mim',
        "ModuleNotFoundError: No module named 'mim'",
        ['--no-deps openmim==0.3.9', 'model-index'],
    ),
    'checkpoints': (
        'training checkpoints',
        '_pickle.UnpicklingError: Weights only load failed. GLOBAL HistoryBuffer',
        ['import mmuniformer before loading'],
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
        ['pip install terminaltables'],
    ),
}


@pytest.mark.parametrize('row', ROWS)
def test_symptom_has_its_cure(row):
    name, error, named = ROWS[row]
    finding = judge_all(**{name.replace(' ', '_'): error})[name]
    assert finding.state == 'broken'
    assert finding.problem == error
    for words in named:
        assert words in finding.cure


@pytest.mark.parametrize(
    ('name', 'found', 'named'),
    [
        ('setuptools', '60.2.0', 'opendatalab'),
        ('setuptools', '82.0.1', 'setuptools>=77.0.3,<81'),
        ('CUDA', '13.0, no GPU in reach', 'CPU index'),
        ('mmdet', '3.3.0 without .mim', 'bases of their own'),
        ('mmuniformer', '0.1.0 without .mim', 'without -e'),
    ],
)
def test_surprise_ahead_is_a_note_with_a_cure(name, found, named):
    finding = doctor._judge(name, found, '', {})
    assert (finding.state, finding.found) == ('note', found)
    assert named in finding.cure


@pytest.mark.parametrize('version', ['77.0.3', '80.10.2'])
def test_right_setuptools_needs_no_note(version):
    assert doctor._judge('setuptools', version, '', {}).state == 'ok'


def test_absent_torchvision_is_fine():
    finding = judge_all(torchvision="ModuleNotFoundError: No module named 'torchvision'")
    assert finding['torchvision'].state == 'ok'
    assert finding['mmengine'].state == 'ok'


def test_parts_behind_a_broken_one_wait_for_it():
    findings = judge_all(torch="ModuleNotFoundError: No module named 'torch'")
    assert findings['mmdet'].state == 'blocked'
    assert findings['mmdet'].problem == 'waits for mmcv ops'
    assert findings['mmdet'].cure == ''
    assert [name for name, finding in findings.items() if finding.state == 'broken'] == ['torch']


@pytest.mark.parametrize(
    ('broken', 'remaining'),
    [
        ('mmdet', {'seg', 'pose'}),
        ('mmseg', {'det', 'pose'}),
        ('mmpose', {'det', 'seg'}),
        ('xtcocotools', {'det', 'seg'}),
        ('mmcv ops', set()),
        ('torch', set()),
        ('mmuniformer', set()),
        ('training checkpoints', set()),
        ('mim', set(TASKS)),
    ],
)
def test_task_runs_where_all_it_needs_works(broken, remaining):
    findings = judge_all(**{broken.replace(' ', '_'): 'ImportError: broken'})
    tasks = doctor.runnable(list(findings.values()))
    assert {task for task, works in tasks.items() if works} == remaining


def test_status_and_json(outcomes):
    fine = CliRunner().invoke(doctor.command, ['--json'])
    assert fine.exit_code == 0
    assert json.loads(fine.stdout)['tasks'] == dict.fromkeys(TASKS, True)
    outcomes['mmseg'] = ('', "ModuleNotFoundError: No module named 'ftfy'")
    done = CliRunner().invoke(doctor.command, ['--json'])
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert report['tasks'] == {'det': True, 'seg': False, 'pose': True}
    (mmseg,) = [part for part in report['parts'] if part['name'] == 'mmseg']
    assert mmseg['cure'] == 'pip install ftfy regex'


def test_table_names_every_part_and_cures_stay_on_one_line(outcomes):
    outcomes['mmcv ops'] = ('', "ModuleNotFoundError: No module named 'mmcv._ext'")
    done = CliRunner().invoke(doctor.command)
    assert done.exit_code == 1
    for name in doctor.PARTS:
        assert name in done.stdout
    (cure,) = [line for line in done.stdout.splitlines() if line.startswith('mmcv ops: ')]
    assert cure.removeprefix('mmcv ops: ').startswith('pip uninstall -y mmcv && ')
    assert 'mmcv==2.1.0' in cure
    assert 'det: can not run' in done.stdout


def fake_module(folder, name, body):
    package = folder / name
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(textwrap.dedent(body))


def test_trying_a_part_survives_whatever_it_does(monkeypatch):
    part = doctor.Part
    assert doctor._try(part('print("noise"); print("1.2")')) == ('1.2', '')
    assert doctor._try(part('raise OSError("libx.so is gone")')) == ('', 'OSError: libx.so is gone')
    assert doctor._try(part('import sys; sys.exit(3)')) == ('', 'exit status 3')
    killed = doctor._try(part('import os, signal; os.kill(os.getpid(), signal.SIGSEGV)'))
    assert killed == ('', 'its process died of signal 11')
    monkeypatch.setattr(doctor, 'PROBE_SECONDS', 0.2)
    assert doctor._try(part('import time; time.sleep(60)')) == ('', 'no answer within 0.2 s')


@pytest.mark.slow
def test_doctor_runs_with_everything_broken(run_python, tmp_path):
    fake = tmp_path / 'fake'
    fake_module(fake, 'torch', 'raise OSError("libtorch_cpu.so: cannot open shared object file")')
    fake_module(fake, 'mim', 'raise ModuleNotFoundError("No module named \'pkg_resources\'")')
    fake_module(fake, 'xtcocotools', 'raise ValueError("numpy.dtype size changed")')
    fake_module(fake, 'torchvision', 'raise RuntimeError("operator torchvision::nms is unknown")')
    main = "from mmuniformer.cli import main; main(['doctor', '--json'])"
    done = run_python('-c', main, path=fake)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    report = json.loads(done.stdout)
    assert report['tasks'] == dict.fromkeys(TASKS, False)
    states = {part['name']: part['state'] for part in report['parts']}
    assert states['python'] == states['numpy'] == 'ok'
    broken = {name for name, state in states.items() if state == 'broken'}
    assert broken == {'torch', 'mim', 'xtcocotools', 'torchvision'}
    cures = {part['name']: part['cure'] for part in report['parts']}
    assert cures['torchvision'].startswith('pip uninstall -y torchvision')
    assert 'setuptools' in cures['mim']


@pytest.mark.slow
def test_doctor_finds_this_environment_fine(run_python):
    done = run_python('-c', "from mmuniformer.cli import main; main(['doctor', '--json'])")
    report = json.loads(done.stdout)
    assert [part for part in report['parts'] if part['state'] in ('broken', 'blocked')] == []
    assert done.returncode == 0


def test_cures_name_the_pinned_versions(repository):
    pins = (repository / 'requirements' / 'constraints.txt').read_text()
    cures = [part.install for part in doctor.PARTS.values()] + [cure for _, cure in doctor.CURES]
    named = set(re.findall(r'([\w-]+)==([\d.]+)', ' '.join(cures)))
    assert {name for name, _ in named} == {
        *('torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'mmpose', 'openmim')
    }
    for name, version in named:
        assert f'\n{name}=={version}\n' in pins
