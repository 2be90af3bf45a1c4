"""What several test modules share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Before torch starts its threads: they should not spin where others compute, too.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
import torch  # noqa: E402

from mmuniformer.compat import CAN_EXPORT  # noqa: E402

# With pytest-xdist each process has a core.
torch.set_num_threads(1 if 'PYTEST_XDIST_WORKER' in os.environ else 2)
# On an older torch the package refuses to be imported; tests/cli says how.
collect_ignore = [] if CAN_EXPORT else ['deployment', 'integration/test_export.py']
GPU = torch.cuda.get_device_name() if torch.cuda.is_available() else None


def pytest_report_header():
    """Name the card, where there is one."""
    return f'GPU: {GPU}, torch {torch.__version__}, CUDA {torch.version.cuda}' if GPU else None


def pytest_runtest_setup(item):
    """Skip the tests for a GPU where there is none."""
    if item.get_closest_marker('gpu') and not GPU:
        pytest.skip('needs a GPU')


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items):
    """Mark what starts processes or builds wheels as integration: the core stays fast."""
    for item in items:
        if {'run_python', 'wheel'} & set(getattr(item, 'fixturenames', ())):
            item.add_marker('integration')


@pytest.fixture(scope='session')
def toy_root(tmp_path_factory):
    """A small toy data set, written once."""
    from mmuniformer.datasets.toy.write import write_toy_data

    root = tmp_path_factory.mktemp('toy')
    write_toy_data(root, seed=0, train_images=8, val_images=4, size=128)
    return root


@pytest.fixture
def run_python(tmp_path):
    """Run code or arguments in a fresh Python, away from the checkout; ``path`` comes first there.

    ``path`` is a folder of modules that hide the installed ones of the same name.
    """

    def run(*arguments, path=None):
        places = [path, os.environ.get('PYTHONPATH')]
        environment = {
            **os.environ,
            'OMP_NUM_THREADS': '2',
            'PYTHONPATH': os.pathsep.join(str(place) for place in places if place),
        }
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture(scope='session')
def repository():
    """The checkout."""
    return Path(__file__).resolve().parent.parent
