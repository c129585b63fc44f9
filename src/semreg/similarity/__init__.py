"""Distances between features: lower is better, differentiable, with weights. Knows nothing of mm.

Features are (P, C), samples by channels.
"""

from semreg.similarity.contract import Distance, Shape, Slope
from semreg.similarity.correlation import FLAT, RADIUS, lncc, ncc
from semreg.similarity.samples import (
    DAMPING,
    SMALL,
    cosine,
    dice,
    dotproduct,
    l1,
    l1cosine,
    l2,
)
from semreg.similarity.table import DISTANCES, lncc_of

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
