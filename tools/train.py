"""``mmuniformer train`` as the script that mim runs."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['train', *sys.argv[1:]])
