"""``mmuniformer complexity`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['complexity', *sys.argv[1:]])
