"""Profiles and layouts side by side; the same as ``mmuniformer benchmark``."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['benchmark', *sys.argv[1:]])
