"""Structure sets, doses and segmentations of DICOM through a transform, onto the image that they are to be seen with.

Like images they are brought from the moving to the fixed side: the transform leads from the reference to them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from semreg.core.geometry import Grid, Matrix
from semreg.errors import ConfigError, GeometryError
from semreg.io.bridge import matrix_of, to_volume
from semreg.io.dicom_files import is_dicom, read_header
from semreg.io.dicom_frames import DOSE, SEGMENTATIONS
from semreg.io.dicom_objects.doses import dose_object
from semreg.io.dicom_objects.headers import DicomImage, series_headers
from semreg.io.dicom_objects.registration_maps import is_registration
from semreg.io.dicom_objects.registrations import kind_of_matrix
from semreg.io.dicom_objects.segmentations import segmentation
from semreg.io.dicom_objects.structures import (
    CLOSED,
    OPEN,
    STRUCTURES,
    Contour,
    Structure,
    read_structures,
    structure_set,
)
from semreg.io.dicom_objects.writing import reference, save
from semreg.io.files import read_grid
from semreg.transforms.base import Points
from semreg.transforms.chain import Chain
from semreg.transforms.contours import Planes, Region, enclosed
from semreg.transforms.domain import Outside
from semreg.transforms.images import Interpolation, read_any_image, resample

logger = logging.getLogger("semreg")

ENDING = ".dcm"
SURFACE_POINTS = 24
"""Points along each axis of a dose whose places say how far it reaches on the other side."""


@dataclass(frozen=True)
class Onto:
    """The image that an object is brought to."""

    image: DicomImage
    grid: Grid
    outside: Outside
    registration: Path | None = None
    """The registration object that the transform is, if it is one."""

    @classmethod
    def of(cls, path: Path | None, series: str | None, outside: Outside, transforms: list[Path]) -> Onto:
        """The reference of ``semreg apply``.

        Args:
            path: its file or folder; None: none was given.
            series: which one of a folder.
            outside: what points do beyond the boxes of the transform's fields.
            transforms: the files of the transform.

        Returns:
            Its headers and its grid.

        Raises:
            ConfigError: where there is none in DICOM.
            GeometryError: where it is in 2-D.
        """
        if path is None:
            raise ConfigError("expected the DICOM series that the result lies on, got none: give --reference FOLDER")
        grid = read_grid(path, series)
        if grid.dimension != 3:
            raise GeometryError(f"expected a series in 3-D as the reference, got {path} in 2-D: give the whole series")
        own = transforms[0] if len(transforms) == 1 and is_registration(transforms[0]) else None
        return cls(series_headers(path, series, "as the reference of structures and doses"), grid, outside, own)


@dataclass(frozen=True)
class MovedRegion:
    """What became of one region."""

    name: str
    volume_mm3: float
    """Areas times the distance of the planes."""
    volume_before_mm3: float
    slices: int

    @property
    def sentence(self) -> str:
        """In words."""
        before = f"{self.volume_before_mm3 / 1000:.4g} before"
        return f"{self.volume_mm3 / 1000:.4g} ml, {before}, on {self.slices} slices"


@dataclass(frozen=True)
class MovedStructures:
    """What the record says of structures that were brought."""

    structures: tuple[MovedRegion, ...]
    left_out: tuple[str, ...]
    """Regions that could not be brought, or have nothing on the slices of the reference."""

    def rows(self) -> list[tuple[str, str]]:
        """What was brought where, in rows."""
        rows = [(each.name or "-", each.sentence) for each in self.structures]
        return [*rows, *([("left out", ", ".join(self.left_out))] if self.left_out else [])]


@dataclass(frozen=True)
class MovedDose:
    """What the record says of a dose that was brought."""

    size: tuple[int, ...]
    sum: float
    """Of the values times the volume of a voxel in mm³."""
    sum_before: float

    def rows(self) -> list[tuple[str, str]]:
        """What was brought where, in rows."""
        share = "" if not self.sum_before else f", {100 * self.sum / self.sum_before:.4g} % of before"
        return [("dose", " × ".join(map(str, self.size))), ("sum", f"{self.sum:.6g} × mm³{share}")]


Bring: TypeAlias = Callable[[Path, Path, Chain, Onto], "MovedStructures | MovedDose"]


def object_to_bring(source: Path, target: Path) -> Bring | None:
    """How a structure set or a dose is brought that is to be one again.

    Args:
        source: the file to bring.
        target: the file to write, whose name says what it is to be.

    Returns:
        What brings it; None for anything else.

    Raises:
        ConfigError: for a structure set that is to become something else.
    """
    if not (source.is_file() and is_dicom(source)):
        return None
    kind = str(read_header(source)[0].get("SOPClassUID"))
    as_dicom = target.suffix.lower() == ENDING
    if kind == STRUCTURES and not as_dicom:
        raise ConfigError(f"expected the name of a {ENDING} file for a structure set, got {target}")
    return OBJECTS.get(kind) if as_dicom else None


def bring_structures(source: Path, target: Path, chain: Chain, onto: Onto) -> MovedStructures:
    """Write the structures of a set as closed contours on the slices of the reference; points become points.

    Args:
        source: the structure set.
        target: the file to write.
        chain: leads from the reference to the structures.
        onto: the reference.

    Returns:
        The volumes before and after.

    Raises:
        ImageError: for a damaged set.
        GeometryError: for a transform in 2-D or that cannot be inverted.
        ConfigError: for a reference without a frame of reference.
        OutputError: where the file cannot be written.
    """
    data, structures = read_structures(source)
    _check_dimension(chain)
    planes: dict[int, Planes] = {}
    trouble: dict[int, str] = {}
    for each in structures:
        if each.closed:
            try:
                planes[each.number] = Planes.of(each.closed)
            except GeometryError as error:
                trouble[each.number] = str(error)
    step = _step_of(planes, onto.grid)
    found: dict[int, list[Contour]] = {}
    regions = []
    for each in structures:
        found[each.number] = _moved_points(each, chain, onto.outside)
        if each.number in planes:
            region = Region.of(planes[each.number], step)
            sections = dict(region.sections(chain, onto.grid, onto.outside))
            found[each.number] += [Contour(line, CLOSED[0]) for lines in sections.values() for line in lines]
            volume = onto.grid.spacing[0] * sum(_area_on(lines, onto.grid) for lines in sections.values())
            regions.append(MovedRegion(each.name, volume, planes[each.number].volume(step), len(sections)))
    for each in structures:
        if not found[each.number] and each.contours:
            trouble.setdefault(each.number, "nothing of it lies on the slices of the reference")
    for each in structures:
        if each.number in trouble:
            logger.warning("the structure %r is left out: %s", each.name, trouble[each.number])
    save(structure_set(data, found, onto.image), target)
    return MovedStructures(tuple(regions), tuple(each.name for each in structures if each.number in trouble))


def bring_dose(source: Path, target: Path, chain: Chain, onto: Onto) -> MovedDose:
    """Write a dose in the axes of the reference, with the voxels of its own size, wherever it reaches there.

    Args:
        source: the dose.
        target: the file to write.
        chain: leads from the reference to the dose.
        onto: the reference.

    Returns:
        The sums before and after.

    Raises:
        ImageError: for a damaged dose.
        GeometryError: for a transform in 2-D or that cannot be inverted.
        ConfigError: for a reference without a frame of reference.
        OutputError: where the file cannot be written.
    """
    data, _ = read_header(source)
    _check_dimension(chain)
    image = read_any_image(source)
    own = read_grid(source)
    grid = dose_grid(own, chain, onto)
    moved = resample(image, chain, grid, Interpolation.LINEAR, 0.0, outside=onto.outside)
    values, before = (to_volume(each).data[0].numpy() for each in (moved, image))
    if data.get("DVHSequence"):
        logger.warning("%s: its dose-volume histograms are left out: they are of the dose as it was", source)
    rigid = chain.is_linear and kind_of_matrix(matrix_of(chain.affine())) == "RIGID"
    registration = None if onto.registration is None else reference(read_header(onto.registration)[0])
    save(dose_object(data, values, grid, onto.image, rigid=rigid, registration=registration), target)
    sums = [
        float(array.sum(dtype=np.float64)) * float(np.prod(g.spacing)) for array, g in ((values, grid), (before, own))
    ]
    return MovedDose(grid.size_xyz, sums[0], sums[1])


def bring_segmentation(source: Path, target: Path, chain: Chain, onto: Onto) -> MovedStructures:
    """Write the segments of a segmentation on the voxels of the reference, the largest share of each voxel.

    Args:
        source: the segmentation; its segments do not overlap.
        target: the file to write.
        chain: leads from the reference to the segments.
        onto: the reference.

    Returns:
        The volumes before and after.

    Raises:
        ImageError: for a damaged one, and for segments that overlap.
        GeometryError: for a transform in 2-D.
        ConfigError: for fractions, and for a reference without a frame of reference.
        OutputError: where the file cannot be written.
    """
    data, _ = read_header(source)
    if str(data.get("SegmentationType")) == "FRACTIONAL":
        raise ConfigError(f"expected segments of whole voxels to be written in DICOM, got fractions in {source}: "
                          "bring them as an image, such as .nrrd")  # fmt: skip
    _check_dimension(chain)
    image = read_any_image(source, nearest=True)
    resampled = resample(image, chain, onto.grid, Interpolation.LABEL, 0.0, outside=onto.outside)
    moved, before = (to_volume(each) for each in (resampled, image))
    regions, lost = [], []
    for each in data.get("SegmentSequence") or ():
        label, name = int(each.SegmentNumber), str(each.get("SegmentLabel") or each.SegmentNumber)
        sizes = [float((v.data == label).sum()) * float(np.prod(v.grid.spacing)) for v in (moved, before)]
        slices = int((moved.data[0] == label).flatten(1).any(1).sum())
        regions.append(MovedRegion(name, sizes[0], sizes[1], slices))
        if sizes[1] and not sizes[0]:
            lost.append(name)
            logger.warning("the segment %r is left out: it has no voxel of the reference", name)
    save(segmentation(data, moved.data[0].long().numpy(), onto.grid, onto.image), target)
    return MovedStructures(tuple(regions), tuple(lost))


def dose_grid(dose: Grid, chain: Chain, onto: Onto) -> Grid:
    """The grid in the axes of the reference that holds all of a dose, with its spacing."""
    ends = [np.linspace(-0.5, n - 0.5, SURFACE_POINTS) for n in dose.shape]
    index = np.stack([each.ravel() for each in np.meshgrid(*ends, indexing="ij")])
    matrix = dose.index_to_point()
    moved = chain.inverse().follow(matrix[:3, :3] @ index + matrix[:3, 3:], onto.outside).points
    axes: Matrix = np.asarray(onto.grid.direction)
    along, spacing = axes.T @ moved, np.asarray(dose.spacing_xyz)
    low, high = along.min(1), along.max(1)
    size = np.maximum(1, np.ceil((high - low) / spacing - 1e-3).astype(int))
    origin = axes @ ((low + high) / 2 - spacing * (size - 1) / 2)
    return Grid(tuple(size.tolist()), dose.spacing_xyz, tuple(origin.tolist()), onto.grid.direction)


def _moved_points(structure: Structure, chain: Chain, outside: Outside) -> list[Contour]:
    """Points and open lines after the transform; a line that lay in a plane does so no more."""
    moved = []
    for each in structure.contours:
        if each.kind in OPEN:
            kind = "OPEN_NONPLANAR" if each.kind == "OPEN_PLANAR" else each.kind
            moved.append(Contour(chain.inverse().follow(each.points, outside).points, kind))
    return moved


def _step_of(planes: Mapping[int, Planes], grid: Grid) -> float:
    """The usual distance of the planes of all structures in mm; of the reference's slices where each has one plane."""
    steps = [each.step for each in planes.values() if each.step is not None]
    if steps:
        return float(min(steps))
    if planes:
        logger.warning(
            "every structure has one plane: it counts as %.4g mm thick, as the slices of the reference", grid.spacing[0]
        )
    return grid.spacing[0]


def _area_on(lines: tuple[Points, ...], grid: Grid) -> float:
    """The area of the contours of one slice in mm²."""
    axes = np.asarray(grid.direction)
    return enclosed([axes[:, :2].T @ line for line in lines])


def _check_dimension(chain: Chain) -> None:
    if chain.dimension != 3:
        raise GeometryError("expected a transform in 3-D for DICOM objects, got one in 2-D: give that of the images")


OBJECTS: Mapping[str, Bring] = {
    STRUCTURES: bring_structures, DOSE: bring_dose, **dict.fromkeys(SEGMENTATIONS, bring_segmentation),
}  # fmt: skip
"""What is brought, by its SOP class."""
