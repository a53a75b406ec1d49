"""Paints masks on top of each other, from the lowest to the highest."""

import numpy as np


def paint(height, width, layers):
    """(class names, instances) of layers (mask, class name or "", number of the thing or 0), the lowest first."""
    names, instances = np.full((height, width), "", object), np.zeros((height, width), np.int64)
    for mask, name, number in layers:
        names[mask], instances[mask] = name, number
    return names, instances
