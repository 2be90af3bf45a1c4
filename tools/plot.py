"""``mmuniformer plot`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['plot', *sys.argv[1:]])
