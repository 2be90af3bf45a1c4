"""Evaluate a config of any of the three frameworks; mim runs this file."""

import sys

from mmuniformer.apis.train import run_evaluation

if __name__ == '__main__':
    sys.exit(run_evaluation())
