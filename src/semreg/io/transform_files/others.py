"""Transforms of tools that ITK knows nothing of, told by what their files look like, to refuse them by their name.

None is read: what their numbers mean depends on the voxels of both images, which the file does not hold.
"""

from __future__ import annotations

import re

from semreg.errors import GeometryError

NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
ROWS = re.compile(rb"\s*(?:" + NUMBER + rb"[ \t]+){3}" + NUMBER + rb"[ \t\r]*\n")
"""A row of four numbers at the start of a file."""
OTHERS = (
    (
        re.compile(rb"(?:#[^\n]*\n)*\s*type\s*=\s*\d+.*\bnxforms\s*=", re.DOTALL),
        "an LTA file of FreeSurfer",
        "lta_convert --outitk writes it for ITK",
    ),
    (
        re.compile(rb"#\s*3d\w+ matrices", re.IGNORECASE),
        "a matrix of AFNI",
        "write it, turned to LPS, as an AffineTransform into a .tfm file",
    ),
    (
        ROWS,
        "a matrix of four columns, as FSL, NiftyReg and greedy write it",
        "c3d_affine_tool -oitk writes it for ITK, with -fsl2ras and both images where it is of FSL",
    ),
)
"""What the file begins with, whose it is, and what to do."""


def refuse_others(start: bytes, ending: str) -> None:
    """GeometryError, with its name and what to do, where a file begins as one of these; ``ending`` in small letters."""
    if ending == ".x5":
        raise GeometryError("expected a transform that ITK reads, got X5 of NiTransforms: convert it to ITK there")
    for pattern, name, advice in OTHERS:
        if pattern.match(start):
            raise GeometryError(f"expected a transform that ITK reads, got {name}: {advice}")
    if ending == ".1d":
        raise GeometryError(f"expected a transform that ITK reads, got {OTHERS[1][1]}: {OTHERS[1][2]}")
