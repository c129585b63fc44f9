"""All formats of transforms by name: the names of their files, and where they are written. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from semreg.runtime.registry import Row, Table

if TYPE_CHECKING:
    from semreg.transforms.formats.contract import Format


@dataclass(frozen=True)
class FormatRow(Row):
    """Where a ``Format`` is written, and which names of files mean it."""

    pattern: str = ""
    """What the whole name of a file to write matches. Empty: no name says it."""
    names: str = ""
    """The same in words."""

    def named(self, name: str) -> bool:
        """Whether the name of a file says this format."""
        return bool(self.pattern) and re.fullmatch(self.pattern, name) is not None


FORMATS: Table[FormatRow, Format] = Table(
    "format of transforms",
    {
        "itk": FormatRow("semreg.transforms.formats.itk:ITK", r".*\.(?i:h5|hdf5|tfm|txt)", ".h5, .tfm or .txt (ITK)"),
        "linear": FormatRow("semreg.transforms.formats.itk:LINEAR", r".*\.(?i:mat)", ".mat (linear)"),
        "field": FormatRow(
            "semreg.transforms.formats.displacement:FIELD",
            r".*\.(?i:nii\.gz|nii|nrrd|mha)",
            ".nii.gz, .nrrd or .mha (a field)",
        ),
        "warp": FormatRow(
            "semreg.transforms.formats.displacement:WARP", r".*Warp\.(?i:nii(\.gz)?)", "*Warp.nii.gz (ANTs)"
        ),
        "ants": FormatRow("semreg.transforms.formats.ants:ANTS"),
        "elastix": FormatRow(
            "semreg.transforms.formats.elastix:ELASTIX",
            r"TransformParameters.*\.(?i:txt)",
            "TransformParameters*.txt (elastix)",
        ),
        "dicom": FormatRow("semreg.transforms.formats.dicom:DICOM"),
    },
)
"""By the name that ``--format`` takes. The last one that a name matches counts: later ones are more special."""
