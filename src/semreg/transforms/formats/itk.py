"""Transform files of ITK, with all parts as they are, and one matrix as ``.mat``, which is what ANTs reads too."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from semreg.core.geometry import Grid
from semreg.errors import GeometryError
from semreg.io import files
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.contract import Format
from semreg.transforms.formats.displacement import field_of


def write(chain: Chain, path: Path, reference: Grid | None, outside: Outside) -> list[Path]:
    """All parts in one file; with a ``reference`` what deforms as one field on it."""
    if reference is not None and not chain.is_linear:
        files.write_transform(field_of(chain, reference, outside), path)
        return [path]
    values = sum(chain.dimension * math.prod(_field_size(link.transform)) for link in chain.links if link.is_field)
    files.write_sitk_transform(chain.sitk(), path, values=values)
    return [path]


def write_matrix(chain: Chain, path: Path, _reference: Grid | None, _outside: Outside) -> list[Path]:
    """The linear whole as one AffineTransform. Raises GeometryError for what deforms."""
    if not chain.is_linear:
        raise GeometryError(
            f"expected a linear transform for {path.name}, got one that deforms: choose .h5, .nii.gz or --format ants"
        )
    files.write_sitk_transform(chain.affine(), path)
    return [path]


def _field_size(transform: Any) -> tuple[int, ...]:
    return tuple(transform.GetDisplacementField().GetSize())


ITK = Format(write)
LINEAR = Format(write_matrix)
