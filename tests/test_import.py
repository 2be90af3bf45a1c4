"""The core needs torch, numpy and mmengine only, and is found by its scoped name."""

import importlib

import pytest
from mmengine.registry import MODELS

import mmuniformer

BLOCKED = """
import sys
from importlib.machinery import PathFinder
# Not cv2, PIL, matplotlib and rich: mmengine itself imports these.
NAMES = {'mmcv', 'mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'mmaction', 'mim', 'click',
         'pycocotools', 'torchvision', 'xtcocotools', 'scipy', 'pandas'}

class Without(PathFinder):
    # As if they were not installed: find_spec gives None, an import ModuleNotFoundError.
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition('.')[0] in NAMES:
            return None
        return super().find_spec(fullname, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""


def test_core_imports_and_builds_without_the_frameworks(run_python):
    code = BLOCKED + (
        'import mmuniformer, torch\n'
        'from mmengine.registry import MODELS\n'
        'for name in ("mmuniformer.UniFormer", "mmuniformer.UniFormerLight", "UniFormer"):\n'
        '    model = MODELS.build(dict(type=name, arch="nano"))\n'
        '    maps = model.eval()(torch.zeros(1, 3, 64, 64))\n'
        '    print(name, [tuple(m.shape[2:]) for m in maps])\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    sizes = [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert done.stdout.splitlines() == [
        f'mmuniformer.UniFormer {sizes}',
        f'mmuniformer.UniFormerLight {sizes}',
        f'UniFormer {sizes}',
    ]


def test_bare_backbone_by_name_needs_no_framework(run_python):
    code = BLOCKED + (
        'import sys, mmuniformer\n'
        'print([name for name in sys.modules if name.startswith("mmuniformer.apis")])\n'
        'print(mmuniformer.list_models("*light_nano"))\n'
        'print(type(mmuniformer.get_model("uniformer_light_nano")).__name__)\n'
    )
    done = run_python('-c', code)
    assert done.stdout.splitlines() == ['[]', "['uniformer_light_nano']", 'UniFormerLight'], (
        done.stderr
    )


def test_block_is_effective(run_python):
    done = run_python('-c', BLOCKED + 'import scipy')
    assert "No module named 'scipy'" in done.stderr


SCOPED = """
import os, sys
import mmcv
# Each framework in a process that knows no other, and starts with what they share.
for scope in ('mmdet', 'mmseg', 'mmpose'):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        models = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
        assert 'mmuniformer' not in sys.modules
        model = models.build(dict(type='mmuniformer.UniFormer', arch='nano'))
        print(scope, type(model).__module__)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
"""


@pytest.mark.slow
def test_scoped_name_resolves_without_an_import(run_python):
    done = run_python('-c', SCOPED)
    found = [line for line in done.stdout.splitlines() if line.startswith('mm')]
    wanted = [f'{scope} mmuniformer.models.uniformer' for scope in ('mmdet', 'mmseg', 'mmpose')]
    assert found == wanted, done.stderr


def test_importing_again_is_no_error():
    before = MODELS.get('UniFormer')
    importlib.reload(mmuniformer)
    assert MODELS.get('UniFormer') is before is mmuniformer.UniFormer
    assert MODELS.get('mmuniformer.UniFormer') is before


def test_broken_torch_warns_and_names_the_reason_on_use(run_python, tmp_path):
    fake = tmp_path / 'fake'
    (fake / 'torch').mkdir(parents=True)
    (fake / 'torch' / '__init__.py').write_text('raise OSError("libtorch_cpu.so: cannot open")')
    done = run_python('-c', 'import mmuniformer; mmuniformer.UniFormer', path=fake)
    assert done.returncode == 1
    assert 'RuntimeWarning: mmuniformer cannot be used here: OSError: libtorch' in done.stderr
    assert 'mmuniformer doctor' in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('ImportError: mmuniformer.UniFormer needs torch and mmengine: libtorch')


def test_version_is_the_one_in_version_py():
    assert mmuniformer.__version__ == importlib.import_module('mmuniformer.version').__version__
    with pytest.raises(AttributeError, match='no_such_name'):
        _ = mmuniformer.no_such_name
