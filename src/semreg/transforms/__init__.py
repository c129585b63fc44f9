"""Transforms that travel: read from any tool, joined, inverted, applied to images and points, written for any tool.

A transform maps points of the fixed image to the moving image, in mm, LPS. So it brings an image from the moving to
the fixed side, and points from the fixed to the moving side; the inverse does the opposite of both.

The names are imported when they are first used, so that the tables of formats can be read without SimpleITK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from semreg.transforms.chain import Chain as Chain
    from semreg.transforms.chain import Followed as Followed
    from semreg.transforms.chain import Link as Link
    from semreg.transforms.dicom import MovedDose as MovedDose
    from semreg.transforms.dicom import MovedStructures as MovedStructures
    from semreg.transforms.dicom import Onto as Onto
    from semreg.transforms.dicom import bring_dose as bring_dose
    from semreg.transforms.dicom import bring_structures as bring_structures
    from semreg.transforms.dicom import object_to_bring as object_to_bring
    from semreg.transforms.domain import Coverage as Coverage
    from semreg.transforms.domain import Outside as Outside
    from semreg.transforms.frames import check_frames as check_frames
    from semreg.transforms.images import Interpolation as Interpolation
    from semreg.transforms.images import background_of as background_of
    from semreg.transforms.images import lost_labels as lost_labels
    from semreg.transforms.images import read_any_image as read_any_image
    from semreg.transforms.images import resample as resample
    from semreg.transforms.images import set_segments as set_segments
    from semreg.transforms.inverse import Inverted as Inverted
    from semreg.transforms.inverse import invert as invert
    from semreg.transforms.jacobian import JacobianSummary as JacobianSummary
    from semreg.transforms.jacobian import jacobian_map as jacobian_map
    from semreg.transforms.jacobian import logarithm as logarithm
    from semreg.transforms.points.reading import is_point_file as is_point_file
    from semreg.transforms.points.reading import move_points as move_points
    from semreg.transforms.points.reading import read_points as read_points
    from semreg.transforms.reading import read_chain as read_chain
    from semreg.transforms.reading import read_transform as read_transform
    from semreg.transforms.several import chosen as chosen
    from semreg.transforms.writing import kind_of as kind_of
    from semreg.transforms.writing import write_chain as write_chain

_HOMES = {
    "Chain": "chain",
    "Coverage": "domain",
    "Followed": "chain",
    "Interpolation": "images",
    "Inverted": "inverse",
    "JacobianSummary": "jacobian",
    "Link": "chain",
    "MovedDose": "dicom",
    "MovedStructures": "dicom",
    "Onto": "dicom",
    "Outside": "domain",
    "background_of": "images",
    "bring_dose": "dicom",
    "bring_structures": "dicom",
    "check_frames": "frames",
    "chosen": "several",
    "invert": "inverse",
    "is_point_file": "points.reading",
    "jacobian_map": "jacobian",
    "kind_of": "writing",
    "logarithm": "jacobian",
    "lost_labels": "images",
    "move_points": "points.reading",
    "object_to_bring": "dicom",
    "read_any_image": "images",
    "read_chain": "reading",
    "read_points": "points.reading",
    "read_transform": "reading",
    "resample": "images",
    "set_segments": "images",
    "write_chain": "writing",
}
"""Name → the module it lives in."""

__all__ = [*_HOMES]  # noqa: PLE0604 - the names of a dict are strings


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"semreg.transforms.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'semreg.transforms' has no attribute {name!r}")
