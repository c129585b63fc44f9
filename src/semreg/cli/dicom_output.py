"""``--dicom`` of ``register`` and ``align``: what is read for it before, and written after.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from semreg.errors import ConfigError

if TYPE_CHECKING:
    from semreg.cli.register_flags import PairFlags
    from semreg.io.bridge import LoadedImage
    from semreg.io.dicom_objects.registrations import Sides


def read_sides(pair: PairFlags, images: Mapping[str, LoadedImage]) -> Sides:
    """The headers of both images, before anything is computed.

    Raises ConfigError where no series can be made of the moving image: it is in no DICOM, or in 2-D.
    """
    from semreg.io.dicom_objects.headers import check_can_be_derived, headers_of, series_headers
    from semreg.io.dicom_objects.registrations import Sides

    if images["fixed"].volume.grid.dimension != 3:
        raise ConfigError(
            "expected images in 3-D with --dicom, got 2-D, which has no place in space: leave --dicom out"
        )
    moving = series_headers(pair.moving, pair.moving_series, "as the moving image with --dicom")
    check_can_be_derived(moving)
    return Sides.of(headers_of(pair.fixed, pair.fixed_series), moving)
