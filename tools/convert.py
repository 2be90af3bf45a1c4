#!/usr/bin/env python3
"""Rewrite a released weight file for today, or back: the same as ``mmuniformer convert``."""

import sys

from mmuniformer.cli import main

if __name__ == '__main__':
    main(['convert', *sys.argv[1:]])
