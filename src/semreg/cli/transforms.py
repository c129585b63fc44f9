"""``semreg apply``, ``convert``, ``compose``, ``invert`` and ``jacobian``: transforms used, joined and handed on."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from semreg.cli.common import JsonMessages, Messages, check_not_read, print_json
from semreg.cli.grouping import grouped
from semreg.cli.outside import Beyond, OutsideBox
from semreg.cli.panels import argument, flag
from semreg.errors import ConfigError, OutputError
from semreg.runtime.terminal import show_rows
from semreg.transforms.formats import FORMATS
from semreg.transforms.points import POINTS

if TYPE_CHECKING:
    from semreg.core.geometry import Grid
    from semreg.transforms import Chain, Outside

logger = logging.getLogger("semreg")
ADVICE = "use a smaller image, a coarser --reference or a machine with more memory"
IMAGE_NAMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".jpg")

Transforms = Annotated[
    list[Path],
    argument(
        "Files, fixed to moving; the first is applied to fixed points first. FILE#2: the second of several in it.",
        "TRANSFORM...",
    ),
]
Transform = Annotated[
    Path,
    argument(
        "File of ITK, ANTs, 3D Slicer or elastix, or a displacement field; FILE#2: the second of several in it.",
        "TRANSFORM",
    ),
]
Reference = Annotated[Path | None, flag("Image whose grid the result gets.", "FILE", "--reference", "-r")]
OutputFile = Annotated[Path, flag("File to write; its name says the format.", "FILE", "--output", "-o")]


Reading = Literal["linear", "bspline", "nearest", "label"]
"""How an image is read between its voxels."""


AsFormat = Annotated[
    str | None,
    flag(
        "Instead of what the name says; ants: OUT1Warp.nii.gz and OUT0GenericAffine.mat.",
        f"[{'|'.join(FORMATS)}]",
        "--format",
    ),
]


@grouped
def apply_command(  # noqa: PLR0913 - one parameter a flag
    *,
    transforms: Transforms,
    source: Annotated[Path, flag(f"Image, labels, or points: {', '.join(POINTS)}.", "FILE", "--input", "-i")],
    output: OutputFile,
    reference: Reference = None,
    inverse: Annotated[bool, flag("Go the other way: see above.", None, "--inverse")] = False,
    interpolation: Annotated[Reading, flag("Of images; label keeps labels, smoothly.")] = "linear",
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

    Several transforms: the first one named is applied to the points of the fixed image first, the order of
    antsApplyTransforms. Images get the grid of --reference, or else that of the field that comes first.
    """
    with messages.spoken(ADVICE):
        check_not_read(output, [source, reference, *files_of(transforms)])
        chain = read(transforms, inverse=inverse)
        from semreg import transforms as library

        points = library.is_point_file(source)
        brought: MovedPoints | ResampledImage
        if points:
            brought = apply_to_points(chain, source, output, outside, ras=ras)
        else:
            grid = grid_for_images(chain, reference)
            resampling = Resampling(interpolation, background, library.Outside(outside))
            brought = apply_to_image(chain, grid, (source, output), resampling)
        sides = ("fixed", "moving") if points != inverse else ("moving", "fixed")
        what = went(points=points, inverse=inverse, reference=reference)
        paths = {"transforms": [str(path) for path in transforms], "files": [str(output)]}
        record = {**vars(brought), **paths, "from": sides[0], "to": sides[1]}
        show(record, [("direction", what), *brought.rows(), ("file", str(output))], messages)


@grouped
def convert_command(
    *,
    transform: Transform,
    output: Annotated[Path, argument("File to write; its name says the format.", "OUTPUT")],
    reference: Reference = None,
    as_format: AsFormat = None,
    outside: OutsideBox = "identity",
    messages: Messages,
) -> None:
    """Write a transform as another tool reads it, in the same direction, fixed to moving.

    By the name of the output: .h5, .tfm, .txt for ITK, SimpleITK and 3D Slicer; .mat a linear one and *Warp.nii.gz
    a field for ANTs; other .nii.gz, .nrrd or .mha a displacement field; TransformParameters*.txt for elastix.
    --reference is the fixed image: it is needed where a grid is and the transform has none.
    """
    with messages.spoken(ADVICE):
        write((transform,), output, (reference, as_format, outside), messages)


@grouped
def compose_command(
    *,
    transforms: Transforms,
    output: OutputFile,
    reference: Reference = None,
    as_format: AsFormat = None,
    outside: OutsideBox = "identity",
    messages: Messages,
) -> None:
    """Join transforms into one: the first named is applied to the points of the fixed image first.

    A .h5 file keeps the parts; with --reference, the fixed image, and in all files that hold one field they become one.
    """
    with messages.spoken(ADVICE):
        write(transforms, output, (reference, as_format, outside), messages)


@grouped
def invert_command(
    *,
    transform: Transform,
    output: OutputFile,
    reference: Reference = None,
    as_format: AsFormat = None,
    messages: JsonMessages,
) -> None:
    """Write the inverse of a transform, moving to fixed, and say how exact it is in mm.

    Linear parts are inverted exactly, fields numerically on their own grid, or the whole as one field on the grid of
    --reference, the moving image.
    """
    with messages.spoken(ADVICE):
        check_name(output, as_format)
        check_not_read(output, [reference, *files_of([transform])])
        chain, grid = read([transform]), grid_of(reference)
        from dataclasses import asdict

        from semreg import transforms as library

        inverted = library.invert(chain, grid)
        files = library.write_chain(inverted.chain, output, grid, kind=as_format)
        quality = asdict(inverted.quality)
        mean, high, most = (quality[f"round_trip_{name}_mm"] for name in ("mean", "999", "max"))
        record = {"transform": str(transform), "files": [str(path) for path in files], "quality": quality}
        rows = [
            ("residual", f"{quality['residual_mm']:.2g} mm at most at the voxels of the inverse"),
            ("round trip", f"{mean:.2g} mm mean, {high:.2g} mm 99.9th percentile, {most:.2g} mm largest"),
            ("without an origin", f"{100 * quality['without_origin']:.2f} % of the voxels"),
            ("files", ", ".join(record["files"])),
        ]
        show(record, rows, messages)


@grouped
def jacobian_command(
    *,
    transform: Transform,
    output: OutputFile,
    reference: Reference = None,
    outside: OutsideBox = "identity",
    log: Annotated[bool, flag("Write the natural logarithm: 0 keeps the volume.", None, "--log")] = False,
    messages: JsonMessages,
) -> None:
    """Write the Jacobian determinant of a transform as an image: 1 keeps the volume, 0 and less is folded.

    On the grid of --reference, the fixed image, or else of the field itself.
    """
    with messages.spoken(ADVICE):
        check_image_name(output)
        check_not_read(output, [reference, *files_of([transform])])
        chain, grid = read([transform]), grid_of(reference)
        from dataclasses import asdict

        from semreg import transforms as library
        from semreg.io import files

        determinant, summary = library.jacobian_map(chain, grid, outside=library.Outside(outside))
        files.write_image(library.logarithm(determinant) if log else determinant, output)
        record = {"transform": str(transform), "files": [str(output)], "jacobian": asdict(summary)}
        low, middle, high = summary.percentiles
        rows = [
            ("smallest", f"{summary.minimum:.4g}"),
            ("1, 50, 99 %", f"{low:.4g}, {middle:.4g}, {high:.4g}"),
            ("largest", f"{summary.maximum:.4g}"),
            ("folded", f"{100 * summary.folded_share:.3g} % of the voxels"),
            *([("left out", left_out(summary.outside_share))] if summary.outside_share else []),
            ("file", str(output)),
        ]
        show(record, rows, messages)


def left_out(share: float) -> str:
    """What the numbers of the determinants do not count."""
    return f"{100 * share:.3g} % of the voxels, outside of the box of the transform or beside it"


def read(paths: Sequence[Path], *, inverse: bool = False) -> Chain:
    """The transforms as one map, or its inverse."""
    from semreg.transforms import read_chain

    chain = read_chain(paths)
    return chain.inverse() if inverse else chain


def files_of(transforms: Sequence[Path]) -> list[Path]:
    """The files that are read; one of several transforms in a file is named with its number, ``pair.tfm#2``."""
    from semreg.transforms import chosen

    return [chosen(path)[0] for path in transforms]


def write(paths: Sequence[Path], output: Path, how: tuple[Path | None, str | None, Beyond], messages: Messages) -> None:
    """Read, join, write, and show what was written; ``how``: on which grid, as what, and what is beyond a field."""
    reference, as_format, outside = how
    check_name(output, as_format)
    check_not_read(output, [*files_of(paths), reference])
    chain, grid = read(paths), grid_of(reference)
    from semreg.transforms import Outside, write_chain

    files = write_chain(chain, output, grid, kind=as_format, outside=Outside(outside))
    rows = [("direction", "points of the fixed image to the moving image"), ("files", ", ".join(map(str, files)))]
    show({}, rows, messages)


@dataclass(frozen=True)
class Resampling:
    """How an image is read."""

    interpolation: str
    background: float | None
    outside: Outside


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
    source = read_any_image(paths[0], nearest=method.keeps_labels, beside=chain.grid or grid)
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
    if not output.name.endswith(".nrrd"):
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


def grid_for_images(chain: Chain, reference: Path | None) -> Grid:
    """The grid of the reference, or else of the field that comes first (ConfigError)."""
    grid = grid_of(reference)
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


def grid_of(reference: Path | None) -> Grid | None:
    """The grid of an image, if one is given."""
    from semreg.io.files import read_grid

    return None if reference is None else read_grid(reference)


def check_name(output: Path, as_format: str | None) -> None:
    """Refuse what is no name of a transform before anything is computed (OutputError)."""
    from semreg.transforms import kind_of

    if as_format is None:
        kind_of(output)
    else:
        FORMATS.check(as_format, "--format")
    check_folder_of(output)


def check_image_name(output: Path) -> None:
    """Refuse what is no name of an image before anything is computed (OutputError)."""
    if not output.name.endswith(IMAGE_NAMES):
        raise OutputError(f"expected the name of an image that ends in {', '.join(IMAGE_NAMES)}, got {output}")
    check_folder_of(output)


def check_folder_of(output: Path) -> None:
    """Refuse a folder as a file, and a file in a folder that is not there (OutputError)."""
    if output.is_dir() or not output.parent.is_dir():
        raise OutputError(f"expected the name of a file in a folder that exists, got {output}: make the folder first")


def show(record: object, rows: Iterable[tuple[str, str]], messages: Messages) -> None:
    """The end of a run: the record, or a few rows."""
    if messages.as_json:
        print_json(record)
    elif not messages.quiet:
        show_rows(list(rows))
