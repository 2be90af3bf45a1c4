"""The console script answers without torch, and loads it for what runs."""

import json

import pytest

from mmuniformer.apis import config, quickstart
from mmuniformer.apis.inference.decode import MAX_PIXELS
from mmuniformer.cli import COMMANDS, options, toy_data
from mmuniformer.compat import CAN_EXPORT
from mmuniformer.datasets.toy.folder import Settings

SCRIPT = """
import json, sys
import mmuniformer_command
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        mmuniformer_command.main()
    except SystemExit as end:
        print(json.dumps([arguments, end.code, 'torch' in sys.modules]), file=sys.stderr)
"""
TORCH = 'raise OSError("libtorch_cpu.so: cannot open")'


@pytest.fixture
def mmuniformer(run_python):
    """Run the console script in one process; return it, and [arguments, status, torch?] of each."""

    def run(*lines, path=None):
        done = run_python('-c', SCRIPT, json.dumps(lines), path=path)
        return done, [json.loads(line) for line in done.stderr.splitlines() if line[:2] == '[[']

    return run


@pytest.fixture
def broken_torch(tmp_path):
    """A folder with a torch that does not import."""
    (tmp_path / 'fake' / 'torch').mkdir(parents=True)
    (tmp_path / 'fake' / 'torch' / '__init__.py').write_text(TORCH)
    return tmp_path / 'fake'


def test_help_needs_no_torch(mmuniformer):
    lines = [['--help'], ['--version'], *([name, '--help'] for name in COMMANDS)]
    lines += [['predict', task, '--help'] for task in options.TASKS]
    lines += [['weights', name, '--help'] for name in ('list', 'fetch', 'verify')]
    _, found = mmuniformer(*lines)
    assert found == [[line, 0, False] for line in lines]


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('tarin', "No such command 'tarin'"),
        ('train', "Missing argument 'CONFIG'"),
        ('train --cfg-options a=1', "Missing argument 'CONFIG'"),
        ('train a.py --cfg-options a.b', "Invalid value for '--cfg-options': 'a.b' is not"),
        ('predict det a.py', "Missing argument 'CHECKPOINT'"),
        ('predict cls a.py a.pth x.jpg --top-k 0', "Invalid value for '--top-k'"),
        ('benchmark dot a.py', "'dot' is not one of 'backbone', 'det'"),
        ('export a.py --format tflite', "'tflite' is not one of 'onnx', 'torch-export'"),
    ],
)
def test_wrong_options_need_no_torch(mmuniformer, line, reason):
    done, found = mmuniformer(line.split())
    assert found == [[line.split(), 2, False]]
    assert reason in done.stderr


def test_what_runs_loads_the_package_once_and_whole(run_python):
    code = (
        'import atexit, sys, mmuniformer_command\n'
        'sys.argv[1:] = ["config", "uniformer-nano_toy-64x64", "--cfg-options", "work_dir=here"]\n'
        'def check():\n'
        '    import mmengine, mmuniformer\n'
        '    print(mmuniformer.UniFormer is mmengine.registry.MODELS.get("UniFormer"))\n'
        'atexit.register(check)\n'
        'mmuniformer_command.main()\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    *text, same = done.stdout.splitlines()
    assert "work_dir = 'here'" in text
    assert same == 'True'


def test_runs_as_a_module(run_python):
    done = run_python('-m', 'mmuniformer_command', 'weights', 'list', 'no such file')
    assert done.stdout == 'no released file fits\n', done.stderr


def test_broken_torch_leaves_help_and_points_to_doctor(mmuniformer, broken_torch):
    done, found = mmuniformer(['train', '--help'], ['train', 'a.py'], path=broken_torch)
    assert [status for _, status, _ in found] == [0, 1]
    assert (
        'Error: mmuniformer train cannot start: OSError: libtorch_cpu.so: cannot open. '
        'Run `mmuniformer doctor` for a fix.'
    ) in done.stderr.splitlines()


def test_predict_says_at_once_that_it_loads(mmuniformer, broken_torch, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')  # as on a terminal
    done, _ = mmuniformer(['predict', 'det', 'a.py', 'b.pth', 'c.jpg'], path=broken_torch)
    before, _, after = done.stderr.partition('Error: mmuniformer predict det cannot start')
    assert 'loading the model' in before
    assert after


@pytest.mark.parametrize(
    ('words', 'completed'),
    [
        ('mmuniformer t', ['toy-data', 'train', 'test']),
        ('mmuniformer train --a', ['--amp', '--auto-scale-lr']),
        ('mmuniformer predict det a.py --cfg-options a=1 --no', ['--no-vis']),
    ],
)
def test_completion_needs_no_torch(mmuniformer, monkeypatch, words, completed):
    monkeypatch.setenv('_MMUNIFORMER_COMPLETE', 'bash_complete')
    monkeypatch.setenv('COMP_WORDS', words)
    monkeypatch.setenv('COMP_CWORD', str(len(words.split()) - 1))
    done, found = mmuniformer([])
    assert [line.split(',')[1] for line in done.stdout.splitlines()] == completed
    assert found == [[[], 0, False]]


def test_copies_in_the_options_are_right():
    assert list(options.TASKS) == list(config.TASKS) == list(quickstart.EXAMPLES)
    assert options.MAX_PIXELS == MAX_PIXELS
    defaults = {param.name: param.default for param in toy_data.command.params}
    wanted = Settings()
    assert (defaults['seed'], defaults['size']) == (wanted.seed, wanted.size)
    assert (defaults['images'], defaults['val_images']) == (
        wanted.train_images,
        wanted.val_images,
    )


@pytest.mark.skipif(not CAN_EXPORT, reason='this torch is too old to export')
def test_options_of_export_are_those_of_its_function():
    from mmuniformer.cli.export import command
    from mmuniformer.deployment.export import Options
    from mmuniformer.deployment.files import FORMATS

    params = {param.name: param for param in command.params}
    assert list(params['format'].type.choices) == list(FORMATS)
    for name in ('format', 'check', 'tolerance'):
        assert params[name].default == getattr(Options(), name)
