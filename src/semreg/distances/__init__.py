"""Distances between features: lower is better, differentiable, with weights. Knows nothing of mm.

A distance is one function, its value from samples (P, C); ``table`` names all of them, ``contract`` says what else a
distance may bring. Importing this imports no torch.
"""

from semreg.distances.table import DISTANCES

__all__ = ["DISTANCES"]
