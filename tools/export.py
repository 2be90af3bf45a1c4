"""``mmuniformer export`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['export', *sys.argv[1:]])
