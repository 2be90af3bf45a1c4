"""Toy scenes (figures, boxes, balls) and their export as COCO and ADE style data sets."""
