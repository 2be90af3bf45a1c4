"""``mmuniformer explain`` as a script."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['explain', *sys.argv[1:]])
