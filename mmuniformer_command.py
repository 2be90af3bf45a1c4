"""The console script ``mmuniformer``: it reads the options before anything imports torch.

``mmuniformer.cli`` lies in a package whose ``__init__`` imports torch and mmengine. Here this is
executed when a command asks for it, so that help and wrong options are answered at once.
"""

import functools
import importlib.util
import sys


def main() -> None:
    """Run the command line of a new process."""
    spec = importlib.util.find_spec('mmuniformer')
    package = sys.modules['mmuniformer'] = importlib.util.module_from_spec(spec)
    from mmuniformer.cli import main

    main(set_up=functools.cache(functools.partial(spec.loader.exec_module, package)))


if __name__ == '__main__':
    main()
