"""``semreg convert``, ``compose``, ``invert`` and ``jacobian``: transforms joined and handed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from semreg.cli.common import JsonMessages, Messages, check_not_read, print_json
from semreg.cli.grouping import grouped
from semreg.cli.outside import Beyond, OutsideBox
from semreg.cli.panels import argument, flag
from semreg.errors import OutputError
from semreg.runtime.terminal import show_rows
from semreg.transforms.formats import FORMATS

if TYPE_CHECKING:
    from semreg.core.geometry import Grid
    from semreg.transforms import Chain

ADVICE = "use a smaller image, a coarser --reference or a machine with more memory"
IMAGE_NAMES = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif", ".tiff", ".jpg", ".jpeg")

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


AsFormat = Annotated[
    str | None,
    flag(
        "Instead of what the name says; ants: OUT1Warp.nii.gz and OUT0GenericAffine.mat.",
        f"[{'|'.join(FORMATS)}]",
        "--format",
    ),
]


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


def grid_of(reference: Path | None, series: str | None = None) -> Grid | None:
    """The grid of an image, if one is given."""
    from semreg.io.files import read_grid

    return None if reference is None else read_grid(reference, series)


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
    if not output.name.lower().endswith(IMAGE_NAMES):
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
