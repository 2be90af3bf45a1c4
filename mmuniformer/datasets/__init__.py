"""Checks on datasets before a run, and toy datasets in COCO and ADE style."""
