"""The door to other people's images: SimpleITK, itk, nibabel and numpy objects ⇄ Volume and Field.

Knows nothing of files and of registration.
"""

from semreg.io.bridge.common import (
    PIECE_POINTS,
    PIXEL_TYPES,
    check_scalar_image,
    piece_on,
    pixel_type_name,
    quantised_mm,
    to_pixels,
)
from semreg.io.bridge.images import LoadedImage, samples_of, to_labels, to_volume
from semreg.io.bridge.itk import (
    field_of_itk,
    grid_of_itk,
    import_itk,
    itk_field,
    itk_image,
    itk_template,
    itk_transform,
    with_itk_header,
)
from semreg.io.bridge.lattice import Lattice, grid_of_header, straightened
from semreg.io.bridge.samples import LabelMap, Samples
from semreg.io.bridge.simpleitk import (
    displacements_of,
    field_of_displacements,
    field_of_transform,
    is_linear,
    matrix_of,
    sitk_field,
    sitk_image,
    sitk_transform,
    transform_of,
    with_sitk_header,
)

__all__ = [
    "PIECE_POINTS",
    "PIXEL_TYPES",
    "LabelMap",
    "Lattice",
    "LoadedImage",
    "Samples",
    "check_scalar_image",
    "displacements_of",
    "field_of_displacements",
    "field_of_itk",
    "field_of_transform",
    "grid_of_header",
    "grid_of_itk",
    "import_itk",
    "is_linear",
    "itk_field",
    "itk_image",
    "itk_template",
    "itk_transform",
    "matrix_of",
    "piece_on",
    "pixel_type_name",
    "quantised_mm",
    "samples_of",
    "sitk_field",
    "sitk_image",
    "sitk_transform",
    "straightened",
    "to_labels",
    "to_pixels",
    "to_volume",
    "transform_of",
    "with_itk_header",
    "with_sitk_header",
]
