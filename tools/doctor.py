"""``mmuniformer doctor`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['doctor', *sys.argv[1:]])
