"""Transforms that travel: read from any tool, joined, inverted, applied to images and points, written for any tool.

A transform maps points of the fixed image to the moving image, in mm, LPS. So it brings an image from the moving to
the fixed side, and points from the fixed to the moving side; the inverse does the opposite of both.
"""

from semreg.transforms.chain import Chain, Followed, Link
from semreg.transforms.domain import Coverage, Outside
from semreg.transforms.formats import Kind, kind_of, write_chain
from semreg.transforms.images import Interpolation, background_of, lost_labels, read_any_image, resample, set_segments
from semreg.transforms.inverse import Inverted, invert
from semreg.transforms.jacobian import JacobianSummary, jacobian_map, logarithm
from semreg.transforms.points import is_point_file, move_points, read_points
from semreg.transforms.reading import read_chain, read_transform
from semreg.transforms.several import chosen

__all__ = [
    "Chain",
    "Coverage",
    "Followed",
    "Interpolation",
    "Inverted",
    "JacobianSummary",
    "Kind",
    "Link",
    "Outside",
    "background_of",
    "chosen",
    "invert",
    "is_point_file",
    "jacobian_map",
    "kind_of",
    "logarithm",
    "lost_labels",
    "move_points",
    "read_any_image",
    "read_chain",
    "read_points",
    "read_transform",
    "resample",
    "set_segments",
    "write_chain",
]
