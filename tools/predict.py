#!/usr/bin/env python3
"""Predict on pictures and videos: the same as ``mmuniformer predict``."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['predict', *sys.argv[1:]])
