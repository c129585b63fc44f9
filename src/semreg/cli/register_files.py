"""The files of ``semreg register``: what is written, what is never written over, what an earlier run left.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from semreg.cli.common import check_dtype, limit_threads
from semreg.cli.register_flags import RegisterFlags
from semreg.errors import OutputError
from semreg.io.atomic_output import OutputFolder
from semreg.io.result_folder import (
    CONFIG,
    DICOM,
    EVALUATION,
    EVALUATION_TABLE,
    FIGURES,
    INVERSE,
    KEYPOINTS,
    PAGE,
    RECORD,
    TRANSFORM,
    warped_contrast,
)
from semreg.runtime.devices import check_device
from semreg.runtime.texts import parse_json, read_text

if TYPE_CHECKING:
    from semreg.io.bridge import LoadedImage
    from semreg.io.dicom_objects.registrations import Sides
    from semreg.quality.run import AlignRun, InputFile, RegisterRun, Run
    from semreg.registration.result import AlignRecord, Registration

FIGURE_NAMES = (
    "before_after", "checkerboard", "grid", "jacobian", "uncertainty", "convergence", "landmarks", "overlay", "contour",
    "arrows", "displacement",
)  # fmt: skip
LATER = (EVALUATION, EVALUATION_TABLE, PAGE, *(f"{FIGURES}/{name}.png" for name in FIGURE_NAMES))
"""What ``semreg evaluate`` and ``report`` may have written since: it is of the transform that was there."""


R = TypeVar("R", "RegisterRun", "AlignRun")


def run_into_folder(flags: RegisterFlags, work: Callable[[OutputFolder], R]) -> tuple[R, list[Path]]:
    """Let ``work`` write into the folder and add its record; what an earlier run left there goes. Also the files."""
    check_outputs(flags)
    before = written_before(flags.pair.output)
    check_device(flags.device)
    limit_threads(flags.threads)
    with OutputFolder(flags.pair.output, record=RECORD) as folder:
        run = work(folder)
        write_texts(run, folder)
        folder.stale = stale_of(flags, before)
    return run, folder.files


def run_of(flags: RegisterFlags, kind: type[R], record: AlignRecord, inputs: Mapping[str, InputFile], **more: Any) -> R:
    """The run with all that the record does not know, as private as it is wanted."""
    from semreg.io.records import versions
    from semreg.quality.privacy import private

    run = kind.of(record, inputs=inputs, command=flags.command, versions=versions(), **more)
    return private(run) if flags.private else run


def write_results(
    flags: RegisterFlags, result: Registration, folder: OutputFolder, pixel_type: str, contrasts: Sequence[str]
) -> None:
    """Write all that is no text; the voxels as ``pixel_type``, those of further ``contrasts`` as theirs."""
    from semreg.io import files

    files.write_image(result.warped, folder.stage(flags.images.name("warped")), flags.images.dtype or pixel_type)
    # of channels none is named: semreg apply warps an image with all of them
    for number, (warped, own) in enumerate(zip(result.warped_contrasts, contrasts, strict=False), 1):
        files.write_image(warped, folder.stage(flags.images.name(warped_contrast(number))), flags.images.dtype or own)
    files.write_field(result.field, folder.stage(flags.images.name("field")))
    files.write_transform(result.deformation, folder.stage(TRANSFORM), result.affine)
    if flags.inverse and result.inverse is not None:
        files.write_field(result.inverse, folder.stage(flags.images.name("inverse")))
        files.write_transform(result.inverse, folder.stage(INVERSE))
    if flags.jacobian:
        files.write_image(result.jacobian(), folder.stage(flags.images.name("jacobian")), "float32")
    name = flags.images.name("uncertainty")  # the page shows it, and whoever draws the page again reads it
    if name in flags.outputs and result.uncertainty is not None:
        files.write_image(result.uncertainty, folder.stage(name), "float32")


def write_dicom(result: Registration, sides: Sides, folder: OutputFolder) -> list[str]:
    """Write the series and the registration object; their names."""
    from semreg.io.dicom_objects.results import FoundMap, write_result

    return write_result(FoundMap.of(result.deformation, result.affine), result.warped, sides, folder)


def write_keypoints(result: Registration, folder: OutputFolder) -> list[str]:
    """Write the points that were found, if there are any; the names of the files."""
    if result.keypoints is None or not result.keypoints.fixed.size:
        return []
    from semreg.transforms.points.writing import ending_of, write_points

    sides = zip(KEYPOINTS, (result.keypoints.fixed, result.keypoints.moving), strict=True)
    named = {f"{name}.{ending_of(points)}": points for name, points in sides}
    for name, points in named.items():
        write_points(points, folder.stage(name))
    return list(named)


def write_texts(run: Run, folder: OutputFolder) -> None:
    """Write the record, and the settings that were in force as a file for ``--config``."""
    from semreg.io.records import stable_json
    from semreg.runtime.settings import to_toml

    folder.stage(RECORD).write_text(stable_json(run), encoding="utf-8")
    folder.stage(CONFIG).write_text(to_toml(run.settings), encoding="utf-8")


def check_outputs(flags: RegisterFlags) -> None:
    """Refuse to write over an input, and voxels of a type that is none (OutputError)."""
    check_dtype(flags.images.dtype)
    points = [f"{name}.{ending}" for name in KEYPOINTS for ending in ("fcsv", "csv")]
    keypoints = points if flags.dense and flags.config.keypoints.enabled else []
    places = {(flags.pair.output / name).resolve(): name for name in (*flags.outputs, *keypoints)}
    for role, path in flags.inputs.items():
        if path.resolve() in places:
            raise OutputError(
                f"expected another output folder: {path}, the {role.replace('_', ' ')}, would be written over"
            )
        if flags.dicom and (flags.pair.output / DICOM).resolve() in (path.resolve(), *path.resolve().parents):
            raise OutputError(
                f"expected another output folder with --dicom: its folder {DICOM} holds {path}, the "
                f"{role.replace('_', ' ')}, which would be written over"
            )
    if flags.dicom:
        check_no_other_slices(flags.pair.output)


def check_no_other_slices(output: Path) -> None:
    """Refuse a folder for slices with files that no earlier run says it wrote (OutputError): series would be mixed."""
    own = set(written_before(output))
    others = sorted(path.name for path in (output / DICOM).glob("*") if f"{DICOM}/{path.name}" not in own)
    if others:
        raise OutputError(
            f"expected no files of others in {output / DICOM}, where the slices of --dicom go, got {len(others)} such "
            f"as {others[0]}: name another output folder, or move them elsewhere"
        )


def written_before(output: Path) -> list[str]:
    """Names of the files that an earlier run wrote into the folder, by its record; none where there is no record."""
    try:
        names = parse_json(read_text(output / RECORD, "a record"))["outputs"]
    except (ValueError, LookupError, TypeError):
        return []
    parts = {str(name): Path(str(name)).parts for name in names}
    own = [name for name, each in parts.items() if len(each) == 1 or (len(each) == 2 and each[0] in (FIGURES, DICOM))]
    return [*own, *LATER]


def stale_of(flags: RegisterFlags, before: list[str]) -> list[str]:
    """What of an earlier run is not read by this one: an old inverse beside a new transform misleads."""
    read = {path.resolve() for path in flags.inputs.values()}
    places = {name: (flags.pair.output / name).resolve() for name in before}
    return [name for name, place in places.items() if not read & {place, place.parent}]


def describe_inputs(flags: RegisterFlags, images: Mapping[str, LoadedImage]) -> dict[str, InputFile]:
    """Paths and checksums of all that was read."""
    from semreg.quality.run import InputFile

    described = {name: InputFile.of(path) for name, path in flags.inputs.items() if name not in images}
    return described | {
        name: InputFile(path=str(i.path), sha256=i.sha256, pixel_type=i.pixel_type, series=flags.pair.series.get(name))
        for name, i in images.items()
    }
