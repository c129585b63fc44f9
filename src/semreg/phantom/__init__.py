"""A CT-like and an MR-like image of one made-up abdomen, with a known smooth deformation between them.

For the demo, the tests and the benchmarks. Everything is a function of points in mm, so any grid can show it; only
the noise belongs to voxels. Knows nothing of files, ITK, features and registration.
"""

from semreg.phantom.anatomy import Anatomy, intensity, make_anatomy
from semreg.phantom.couplings import CouplingMap, make_map
from semreg.phantom.pair import PhantomPair, make_pair, points_of, render

__all__ = [
    "Anatomy",
    "CouplingMap",
    "PhantomPair",
    "intensity",
    "make_anatomy",
    "make_map",
    "make_pair",
    "points_of",
    "render",
]
