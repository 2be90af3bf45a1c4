"""Write the toy data set; the same as ``mmuniformer toy-data``."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['toy-data', *sys.argv[1:]])
