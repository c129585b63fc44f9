"""Distances between features: lower is better, differentiable, with weights. Knows nothing of mm.

Features are (P, C), samples by channels.
"""

from semreg.distances.contract import Distance, Shape, Slope
from semreg.distances.correlation import FLAT, RADIUS, lncc, ncc
from semreg.distances.samples import (
    DAMPING,
    SMALL,
    cosine,
    dice,
    dotproduct,
    l1,
    l1cosine,
    l2,
)
from semreg.distances.table import DISTANCES, lncc_of

__all__ = [
    "DAMPING",
    "DISTANCES",
    "FLAT",
    "RADIUS",
    "SMALL",
    "Distance",
    "Shape",
    "Slope",
    "cosine",
    "dice",
    "dotproduct",
    "l1",
    "l1cosine",
    "l2",
    "lncc",
    "lncc_of",
    "ncc",
]
