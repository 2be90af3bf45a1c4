"""Layouts of stage 3 side by side; the same as ``mmuniformer benchmark``."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['benchmark', *sys.argv[1:]])
