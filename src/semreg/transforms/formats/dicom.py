"""Registration objects of DICOM, linear and deformable, read as transforms from the registered frame to the source.

They name the patient and the images, which a chain of transforms does not know: ``--dicom`` of a registration writes
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from semreg.core.geometry import Grid
from semreg.errors import ConfigError
from semreg.io.bridge import transform_of, with_sitk_header
from semreg.io.dicom_objects.registration_maps import is_registration, read_registration
from semreg.io.transform_files.building import field_transform
from semreg.transforms.chain import Chain
from semreg.transforms.domain import Outside
from semreg.transforms.formats.contract import Format


def read(path: Path) -> list[Any]:
    """The SimpleITK transforms of an object, fixed (registered frame) → moving (source), the first applied first."""
    found = read_registration(path)
    deformation, after = found.deformation, [transform_of(found.after)]
    if deformation is None:
        return after
    field = field_transform(deformation.vectors, lambda image: with_sitk_header(image, deformation.grid))
    return [field] if np.array_equal(found.after, np.eye(4)) else [field, *after]


def write(_chain: Chain, path: Path, _reference: Grid | None, _outside: Outside) -> list[Path]:
    """Refused (ConfigError): patient, study and images are not known here."""
    raise ConfigError(
        f"expected a format of transforms alone for {path.name}, got DICOM, whose objects name patient and images: "
        "semreg register --dicom and semreg align --dicom write them"
    )


DICOM = Format(write, is_registration, read)
