"""The two files of ANTs, a warp and the matrix behind it. Both are read as what they are, an image and a matrix."""

from __future__ import annotations

from pathlib import Path

from semreg.core.geometry import Grid
from semreg.io import files
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.contract import Format
from semreg.transforms.formats.displacement import field_of


def write(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """Two files with the names of ANTs, ``PATH1Warp.nii.gz`` and ``PATH0GenericAffine.mat``.

    The field, and behind it the matrix of all linear parts that follow; both or none.
    """
    cut = max((number for number, link in enumerate(chain.links) if not link.is_linear), default=-1) + 1
    deforming, linear = chain.links[:cut], chain.links[cut:]
    written = []
    with files.OutputFolder(path.parent) as folder:
        if deforming:
            written.append(f"{path.name}1Warp.nii.gz")
            files.write_warp(field_of(Chain(deforming), reference, outside), folder.stage(written[-1]))
        if linear:
            written.append(f"{path.name}0GenericAffine.mat")
            files.write_sitk_transform(Chain(linear).affine(), folder.stage(written[-1]))
    return [path.with_name(name) for name in written]


ANTS = Format(write)
