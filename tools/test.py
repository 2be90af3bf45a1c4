"""``mmuniformer test`` as the script that mim runs."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['test', *sys.argv[1:]])
