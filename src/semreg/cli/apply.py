"""``semreg apply``: an image, labels or points brought through transforms."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from semreg.cli.common import JsonMessages, check_not_read
from semreg.cli.grouping import grouped
from semreg.cli.outside import Beyond, OutsideBox
from semreg.cli.panels import flag
from semreg.cli.transforms import (
    ADVICE,
    OutputFile,
    Reference,
    Transforms,
    check_folder_of,
    check_image_name,
    files_of,
    grid_of,
    read,
    show,
)
from semreg.errors import ConfigError, ImageError, OutputError
from semreg.io.ngff.names import in_chunks, is_ngff_name
from semreg.transforms.points import POINTS

if TYPE_CHECKING:
    from semreg.core.geometry import Grid
    from semreg.transforms import Chain, MovedDose, MovedStructures, Outside

logger = logging.getLogger("semreg")

Reading = Literal["linear", "bspline", "nearest", "label", "points"]
"""How an image is read between its voxels."""


@grouped
def apply_command(  # noqa: PLR0913 - one parameter a flag
    *,
    transforms: Transforms,
    source: Annotated[
        Path, flag(f"Image, labels, RT structures or dose, or points: {', '.join(POINTS)}.", "FILE", "--input", "-i")
    ],
    output: OutputFile,
    reference: Reference = None,
    series: Annotated[str | None, flag("Of the DICOM folder --input: UID or description.", "NAME")] = None,
    reference_series: Annotated[str | None, flag("The same of --reference.", "NAME")] = None,
    inverse: Annotated[bool, flag("Go the other way: see above.", None, "--inverse")] = False,
    interpolation: Annotated[
        Reading, flag("Of images; label keeps labels, smoothly; points keeps each at its centre.")
    ] = "linear",
    background: Annotated[
        float | None, flag("Where the image shows nothing; -1024 for CT, else the smallest value.", "VALUE")
    ] = None,
    outside: OutsideBox = "identity",
    ras: Annotated[bool, flag("Points of a CSV or VTK file are RAS; LPS by default.", None, "--ras")] = False,
    messages: JsonMessages,
) -> None:
    """Bring an image or points through one or several transforms.

    A transform leads from points of the fixed image to the moving image. An image of the moving side is brought onto
    the fixed one; points of the fixed side are brought to the moving one. With --inverse an image of the fixed side
    is brought onto the moving one (the --reference), and points of the moving side to the fixed one. With a transform
    that was written for the other way, such as inverse.h5, the sides change places.

    Structures, doses and segments of DICOM go the way of images, into a .dcm file that belongs to the series of
    --reference.

    Several transforms: the first one named is applied to the points of the fixed image first, the order of
    antsApplyTransforms. Images get the grid of --reference, or else that of the field that comes first.

    An image of OME-Zarr into a name that ends in .zarr is brought block by block, so that it may be of any size.
    """
    with messages.spoken(ADVICE):
        check_not_read(output, [source, reference, *files_of(transforms)])
        chain = read(transforms, inverse=inverse)
        from semreg import transforms as library

        if is_ngff_name(output):
            check_chunks(source, output)
            streamed = apply_in_chunks(chain, (source, output), (reference, reference_series), Resampling(
                interpolation, background, library.Outside(outside), series
            ))  # fmt: skip
            sides = ("moving", "fixed") if inverse else ("fixed", "moving")
            record = streamed[0] | {"transforms": [str(path) for path in transforms], "from": sides[0], "to": sides[1]}
            what = went(points=False, inverse=inverse, reference=reference)
            show(record, [("direction", what), *streamed[1]], messages)
            return
        points = library.is_point_file(source)
        brought: MovedPoints | ResampledImage | MovedStructures | MovedDose
        bring = None if points else library.object_to_bring(source, output)
        if not points:
            check_origins(transforms, (reference, reference_series), (source, series), inverse=inverse)
        if bring is not None:
            check_folder_of(output)
            onto = library.Onto.of(reference, reference_series, library.Outside(outside), transforms)
            brought = bring(source, output, chain, onto)
        elif points:
            brought = apply_to_points(chain, source, output, outside, ras=ras)
        else:
            grid = grid_for_images(chain, reference, reference_series)
            resampling = Resampling(interpolation, background, library.Outside(outside), series)
            brought = apply_to_image(chain, grid, (source, output), resampling)
        sides = ("fixed", "moving") if points != inverse else ("moving", "fixed")
        what = went(points=points, inverse=inverse, reference=reference)
        paths = {"transforms": [str(path) for path in transforms], "files": [str(output)]}
        record = {**vars(brought), **paths, "from": sides[0], "to": sides[1]}
        show(record, [("direction", what), *brought.rows(), ("file", str(output))], messages)


@dataclass(frozen=True)
class Resampling:
    """How an image is read."""

    interpolation: str
    background: float | None
    outside: Outside
    series: str | None = None
    """Which one of a DICOM folder."""


def beyond_row(share: float, what: str, outside: str) -> list[tuple[str, str]]:
    """What lies outside of the boxes of the transform, if anything does."""
    return [("outside of the box", f"{100 * share:.3g} % of the {what}: {outside}")] if share else []


@dataclass(frozen=True)
class MovedPoints:
    """What the record says of points that were moved."""

    points: int
    largest_residual_mm: float | None
    lost: int
    """Points that nothing is mapped to."""
    outside: str
    outside_share: float

    def rows(self) -> list[tuple[str, str]]:
        """What was brought where, in rows."""
        rows = [("points", str(self.points)), *beyond_row(self.outside_share, "points", self.outside)]
        if self.largest_residual_mm:
            rows.append(("residual", f"{self.largest_residual_mm:.2g} mm at most"))
        if self.lost:
            rows.append(("without an origin", f"{self.lost}: outside of what the transform reaches, a guess"))
        return rows


@dataclass(frozen=True)
class ResampledImage:
    """What the record says of an image that was resampled."""

    size: tuple[int, ...]
    pixel_type: str
    interpolation: str
    background: float
    outside: str
    outside_share: float
    labels_lost: tuple[int, ...] | None
    """None where it holds no labels."""

    def rows(self) -> list[tuple[str, str]]:
        """What was brought where, in rows."""
        size = " × ".join(map(str, self.size))
        image = ("image", f"{size}, {self.pixel_type}, {self.interpolation}")
        return [image, *beyond_row(self.outside_share, "voxels", self.outside)]


def apply_to_points(chain: Chain, source: Path, output: Path, outside: Beyond, *, ras: bool) -> MovedPoints:
    """Move the points of a file."""
    import numpy as np

    from semreg.transforms import Outside, move_points

    moved = move_points(source, output, chain, ras=ras, outside=Outside(outside))
    count, lost = len(moved.residual), int(np.isnan(moved.residual).sum())
    largest = float(np.nanmax(moved.residual)) if lost < count else None
    share = float((moved.beyond & ~np.isnan(moved.residual)).mean())
    return MovedPoints(points=count, largest_residual_mm=largest, lost=lost, outside=outside, outside_share=share)


def apply_to_image(chain: Chain, grid: Grid, paths: tuple[Path, Path], how: Resampling) -> ResampledImage:
    """Resample an image."""
    check_image_name(paths[1])
    from semreg.io import files
    from semreg.io.segments import names_of
    from semreg.transforms import Interpolation, background_of, lost_labels, read_any_image, resample

    method = Interpolation(how.interpolation)
    source = read_any_image(paths[0], nearest=method.keeps_labels, beside=chain.grid or grid, series=how.series)
    image = resample(source, chain, grid, method, how.background, outside=how.outside)
    coverage = chain.coverage(grid)
    coverage.say(how.outside)
    lost = None
    segments = {key: source.GetMetaData(key) for key in source.GetMetaDataKeys()}
    if method.keeps_labels:
        lost = tuple(lost_labels(source, image))
        say_lost(lost, names_of(segments))
        keep_segments(segments, image, paths[1])
    files.write_sitk_image(image, paths[1])
    return ResampledImage(
        size=tuple(image.GetSize()), pixel_type=image.GetPixelIDTypeAsString(), interpolation=how.interpolation,
        background=background_of(source, method) if how.background is None else how.background,
        outside=how.outside.value, outside_share=coverage.share, labels_lost=lost,
    )  # fmt: skip


def check_chunks(source: Path, output: Path) -> None:
    """Whether an image can be brought into OME-Zarr block by block (ImageError, OutputError)."""
    if not source.exists():
        raise ImageError(f"expected an image, got {source}: there is no such file")
    if not in_chunks(source):
        raise OutputError(
            f"expected an image of OME-Zarr or a whole slide to write {output.name}, got {source.name}: "
            "choose another name, such as warped.nii.gz"
        )
    if output.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"expected another place for the output: {output} lies within {source}, which is read")


def apply_in_chunks(
    chain: Chain, paths: tuple[Path, Path], reference: tuple[Path | None, str | None], how: Resampling
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """Bring an image of OME-Zarr block by block; the record, and what is shown of it."""
    from semreg.io.ngff.opening import open_pyramid
    from semreg.transforms.streamed import Reading, warp_streamed

    if how.interpolation not in ("linear", "nearest"):
        raise ConfigError(
            f"expected --interpolation linear or nearest into OME-Zarr, got {how.interpolation}: choose one of them"
        )
    near = reference[0]
    whole = near is not None and in_chunks(near)
    grid = open_pyramid(near, reference[1]).finest.grid if whole and near else grid_for_images(chain, *reference)
    mode: Literal["linear", "nearest"] = "linear" if how.interpolation == "linear" else "nearest"
    found = warp_streamed(paths[0], paths[1], chain, grid, Reading(mode, how.background, how.outside, how.series))
    size = " × ".join(map(str, found.size))
    rows = [("image", f"{size}, {found.pixel_type}, {mode}, {found.blocks} blocks"), ("file", str(paths[1]))]
    return {**vars(found), "interpolation": mode, "files": [str(paths[1])]}, rows


def check_origins(
    transforms: Sequence[Path],
    reference: tuple[Path | None, str | None],
    source: tuple[Path, str | None],
    *,
    inverse: bool,
) -> None:
    """Say where reference and image are of two patients, and refuse a registration of DICOM that leads the other way.

    Of ``reference`` and ``source`` the path, and which series of a folder.
    """
    from semreg.io.files import read_origin
    from semreg.io.patients import say_if_two
    from semreg.transforms import check_frames

    path, series = reference
    fixed, moving = None if path is None else read_origin(path, series), read_origin(*source)
    say_if_two({"reference": fixed, "image": moving})
    check_frames(transforms, {"fixed": fixed, "moving": moving}, inverse=inverse)


def say_lost(lost: Sequence[int], names: Mapping[int, str]) -> None:
    """Warn of labels that are not in the result."""
    if lost:
        shown = ", ".join(f"{label} ({names[label]})" if label in names else str(label) for label in lost[:20])
        more = ", …" if len(lost) > 20 else ""
        logger.warning("%d labels of the image have no voxel in the result: %s%s", len(lost), shown, more)


def keep_segments(segments: Mapping[str, str], image: Any, output: Path) -> None:
    """Hand on names and colours of segments to NRRD; other formats have no place for them, which is said."""
    if not segments:
        return
    if not output.name.lower().endswith(".nrrd"):
        logger.warning("the names and colours of the segments are lost: only NRRD keeps them, such as NAME.seg.nrrd")
        return
    from semreg.transforms import set_segments

    set_segments(segments, image)


def went(*, points: bool, inverse: bool, reference: Path | None) -> str:
    """From where to where; a file says from which side it starts, and not which image its maker called fixed."""
    start, end = ("leads to", "starts from") if inverse else ("starts from", "leads to")
    if points:
        return f"points of the side that the transform {start}, to the side that it {end}"
    grid = f"the grid of {reference.name}" if reference is not None else "the grid of the field"
    return f"the image of the side that the transform {end}, onto {grid} on the side that it {start}"


def grid_for_images(chain: Chain, reference: Path | None, series: str | None) -> Grid:
    """The grid of the reference, or else of the field that comes first (ConfigError)."""
    grid = grid_of(reference, series)
    if grid is not None and reference is not None and chain.grid is not None:
        from semreg.io.files import in_unit_of

        grid = in_unit_of(grid, reference, chain.grid)
    grid = grid or chain.grid
    if grid is None:
        raise ConfigError(
            "expected a reference image, whose grid the result gets, as the transform does not start with a field: "
            "give --reference"
        )
    return grid
