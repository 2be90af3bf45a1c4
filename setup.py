"""The build: everything in pyproject.toml, plus the files that go into ``mmuniformer/.mim``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Real files: mim looks for configs, scripts and the model index there, `mmuniformer doctor` for
# the pinned versions.
MIM = (
    'configs',
    'tools/train.py',
    'tools/test.py',
    'requirements',
    'model-index.yml',
)


class BuildWithMim(build_py):
    """Copy the files of ``MIM`` into the package."""

    def run(self):
        """Build into an empty folder, so that deleted files do not live on."""
        package = Path(self.build_lib) / 'mmuniformer'
        if not self.editable_mode:
            shutil.rmtree(package, ignore_errors=True)
        super().run()
        if not self.editable_mode:
            for name in MIM:
                self.copy_for_mim(ROOT / name, package / '.mim' / name)

    def copy_for_mim(self, source, target):
        """Copy one file or folder."""
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


setup(cmdclass={'build_py': BuildWithMim})
