"""``mmuniformer browse`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['browse', *sys.argv[1:]])
