"""Reads a case from the output folder of a registration. Knows nothing of pages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ImageError
from semreg.io.bridge import LoadedImage
from semreg.io.result_folder import FORMATS, ResultFolder
from semreg.report.case import Case


def read_case(
    folder: str | Path,
    *,
    fixed: str | Path | None = None,
    moving: str | Path | None = None,
    title: str | None = None,
    fixed_labels: str | Path | None = None,
    moving_labels: str | Path | None = None,
) -> Case:
    """What ``semreg register`` and ``semreg evaluate`` left in a folder.

    Args:
        folder: record.json, transform.h5 and the images it names; more where it is there.
        fixed: stands for the recorded path of an image that has moved.
        moving: the same for the moving image.
        title: the headline; None: the names of the images.
        fixed_labels: stands for the label map that the evaluation read.
        moving_labels: the same for the moving image.

    Returns:
        All that a page shows.

    Raises:
        ConfigError: without a record.
        ImageError: for an image that is no longer there.
        GeometryError: for a transform that does not fit.
    """
    from semreg.io.files import in_one_unit, read_labels
    from semreg.transforms import read_chain

    place = ResultFolder(folder)
    folder, record, evaluation = place.path, place.record(), place.evaluation()
    notes: list[str] = []
    given = {"fixed": fixed, "moving": moving}
    images = in_one_unit({role: _image(folder, record, role, path, notes) for role, path in given.items()})
    grid = images["fixed"].volume.grid
    verdict = (evaluation or {}).get("verdict") or record.get("verdict")
    background = record.get("background")
    names = {role: image.path.name for role, image in images.items()}
    outlines = _named(folder, evaluation, "labels", notes)
    known = outlines if len(outlines) == 2 else (None, None)
    outlined = [
        None if path is None else read_labels(path) for path in (fixed_labels or known[0], moving_labels or known[1])
    ]
    return Case(
        title=title or f"{names['moving']} onto {names['fixed']}",
        fixed=images["fixed"].volume,
        moving=images["moving"].volume,
        field=read_chain([place.transform]).field_on(grid),
        initial=_initial(folder, evaluation, grid, notes),
        background=float(background) if isinstance(background, (int, float)) else None,
        uncertainty=_beside(place, "uncertainty"),
        evaluation=evaluation,
        verdict=verdict,
        record=record,
        fixed_labels=outlined[0],
        moving_labels=outlined[1],
        names=names,
        notes=tuple(notes),
    )


def _image(
    folder: Path, record: Mapping[str, Any], role: str, given: str | Path | None, notes: list[str]
) -> LoadedImage:
    """An image by its given path, else by its recorded one, else the file of its role in the folder."""
    from semreg.io.files import read_image
    from semreg.quality import locate

    described = (record.get("inputs") or {}).get(role) or {}
    recorded = described.get("path")
    places = [Path(given)] if given is not None else []
    if given is None and recorded:
        places += [locate(recorded, folder), folder / Path(recorded).name]
    if given is None:
        places += [folder / f"{role}.{ending}" for ending in FORMATS]
    path = next((place for place in places if place.exists()), None)
    if path is None:
        expected = given if given is not None else recorded or f"{role}.nii.gz"
        raise ImageError(
            f"expected the {role} image at {expected}, there is no such file: say where it is with --{role}"
        )
    image = read_image(path, series=None if given is not None else described.get("series"))
    if described.get("sha256") not in (None, image.sha256):
        notes.append(f"The {role} image has changed since the registration: its checksum differs from the record's.")
    return image


def _named(folder: Path, evaluation: Mapping[str, Any] | None, role: str, notes: list[str]) -> list[Path]:
    """The files of a role that the evaluation read; none of them where one is gone, and a note where one is another."""
    from semreg.io.files import checksum
    from semreg.quality import locate

    inputs = (evaluation or {}).get("inputs") or {}
    entries = [each for each in inputs.get(role) or [] if isinstance(each, Mapping) and each.get("path")]
    paths = [locate(str(entry["path"]), folder) for entry in entries]
    for entry, path in zip(entries, paths, strict=True):
        if not path.exists():
            notes.append(f"{path}, which the evaluation read, is no longer there: the pictures do without it.")
            return []
        if entry.get("sha256") not in (None, checksum(path)):
            notes.append(f"{path} has changed since the evaluation: the pictures show it as it is now.")
    return paths


def _initial(folder: Path, evaluation: Mapping[str, Any] | None, grid: Grid, notes: list[str]) -> Field | None:
    """Where the evaluation says that the images lay before; None for what their headers say."""
    from semreg.transforms import read_chain

    paths = _named(folder, evaluation, "initial", notes)
    return read_chain(paths).field_on(grid) if paths else None


def _beside(place: ResultFolder, name: str) -> Volume | None:
    """An image that the registration may have written into its folder."""
    from semreg.io.files import read_image

    path = place.find_image(name)
    return None if path is None else read_image(path).volume
