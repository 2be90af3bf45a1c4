"""The build: everything in pyproject.toml, plus the files that mim looks for."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# mim finds configs, tools and model-index.yml in `.mim` of the installed package, as real files.
MIM = ('configs', 'tools', 'model-index.yml')
# Caches, and the installer of a checkout, are no tools of an installed package.
LEFT_OUT = shutil.ignore_patterns('__pycache__', '*.pyc', 'bootstrap.py')


class BuildWithMim(build_py):
    """Copy configs, tools and model-index.yml into ``mmuniformer/.mim``."""

    def run(self):
        """Build into an empty folder: files deleted from the checkout must not live on."""
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
            shutil.copytree(source, target, ignore=LEFT_OUT)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


setup(cmdclass={'build_py': BuildWithMim})
