"""Pairs of made-up images with a known smooth deformation: CT and MR of an abdomen, MR of two heads, stained slides.

For the demo, the tutorials, the tests and the benchmarks. Everything is a function of points in mm, so any grid can
show it; only the noise belongs to voxels. Knows nothing of features and registration.
"""

from semreg.phantom.anatomy import Anatomy, make_anatomy
from semreg.phantom.couplings import CouplingMap, make_map
from semreg.phantom.makers import make_bones, make_brains, make_chests, make_pair, make_slides
from semreg.phantom.pair import PhantomPair, points_of, render
from semreg.phantom.writing import write_pair

__all__ = [
    "Anatomy",
    "CouplingMap",
    "PhantomPair",
    "make_anatomy",
    "make_bones",
    "make_brains",
    "make_chests",
    "make_map",
    "make_pair",
    "make_slides",
    "points_of",
    "render",
    "write_pair",
]
