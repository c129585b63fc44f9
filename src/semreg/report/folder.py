"""Reads a case from the output folder of a registration. Knows nothing of pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.errors import ImageError
from semreg.io.bridge import LabelMap, LoadedImage, matrix_of
from semreg.quality.privacy import names_in
from semreg.quality.privacy import private as hidden
from semreg.quality.run import Result, locate, read_result
from semreg.report.case import Case
from semreg.runtime.texts import without


def read_case(  # noqa: PLR0913 - what a user has
    folder: str | Path,
    *,
    fixed: str | Path | None = None,
    moving: str | Path | None = None,
    title: str | None = None,
    fixed_labels: str | Path | None = None,
    moving_labels: str | Path | None = None,
    private: bool = False,
) -> Case:
    """What ``semreg register`` and ``semreg evaluate`` left in a folder.

    Args:
        folder: record.json, transform.h5 and the images it names; more where it is there.
        fixed: stands for the recorded path of an image that has moved.
        moving: the same for the moving image.
        title: the headline; None: the names of the images.
        fixed_labels: stands for the label map that the evaluation read.
        moving_labels: the same for the moving image.
        private: leave names of files and command lines out, as of a record without them.

    Returns:
        All that a page shows.

    Raises:
        ConfigError: for a folder without a record, or with a record of another version.
        ImageError: for an image that is no longer there.
        GeometryError: for a transform that does not fit.
    """
    from semreg.io.files import in_one_unit, read_labels
    from semreg.transforms import read_chain

    result = read_result(folder)
    notes: list[str] = []
    given = {"fixed": fixed, "moving": moving}
    images = in_one_unit({role: _image(result, role, path, notes) for role, path in given.items()})
    grid = images["fixed"].volume.grid
    outlines = _named(result, "labels", notes)
    known = outlines if len(outlines) == 2 else (None, None)
    outlined = [
        None if path is None else read_labels(path) for path in (fixed_labels or known[0], moving_labels or known[1])
    ]
    chain, initial = read_chain([result.place.transform]), _initial(result, grid, notes)
    structure, said = structure_of(result, grid)
    notes += said
    names = {role: image.path.name for role, image in images.items()}
    if private or result.record.private:
        result, notes = _without_names(result, notes)
        names = {role: result.record.inputs[role].path for role in images}
    return Case(
        title=title or f"{names['moving']} onto {names['fixed']}",
        fixed=images["fixed"].volume,
        moving=images["moving"].volume,
        field=chain.field_on(grid),
        linear=matrix_of(chain.links[-1].transform) if chain.links[-1].is_linear else None,
        initial=initial,
        background=result.record.background,
        uncertainty=uncertainty_of(result),
        evaluation=result.evaluation,
        verdict=result.verdict,
        record=result.record,
        fixed_labels=outlined[0],
        moving_labels=outlined[1],
        structure=structure,
        names=names,
        oriented={role: image.oriented for role, image in images.items()},
        notes=tuple(notes),
    )


def _without_names(result: Result, notes: list[str]) -> tuple[Result, list[str]]:
    """The result and the notes without names of files."""
    names = names_in(result.record) | ({} if result.evaluation is None else names_in(result.evaluation))
    measured = None if result.evaluation is None else hidden(result.evaluation)
    return replace(result, record=hidden(result.record), evaluation=measured), [without(note, names) for note in notes]


def uncertainty_of(result: Result, grid: Grid | None = None) -> Volume | None:
    """The map of uncertainty beside the record, None where there is none, or none of the shape of ``grid``."""
    from semreg.io.files import read_image

    path = result.place.find_image("uncertainty")
    found = None if path is None else read_image(path).volume
    return found if found is None or grid is None or found.grid.shape == grid.shape else None


def structure_of(result: Result, grid: Grid) -> tuple[LabelMap | None, list[str]]:
    """The labels of the rigid parts, or of what slides, of the fixed image on ``grid``; and what is wrong with them."""
    from semreg.io.files import checksum, in_unit_of, read_labels

    given = next((result.record.inputs[role] for role in ("rigid", "sliding") if role in result.record.inputs), None)
    if given is None or result.record.private:
        return None, []
    path = locate(given.path, result.place.path)
    if not path.exists():
        return None, [f"{path}, which the registration read, is no longer there: the pictures do without it."]
    try:
        found = read_labels(path)
    except ImageError:
        found = None
    if found is None or found.grid.dimension != grid.dimension:
        return None, [f"{path} no longer holds the labels that the registration read: the pictures do without it."]
    other = checksum(path) != given.sha256
    said = [f"{path} has changed since the registration: the pictures show it as it is now."] if other else []
    return found.at(in_unit_of(found.grid, path, grid)), said


def _image(result: Result, role: str, given: str | Path | None, notes: list[str]) -> LoadedImage:
    """An image by its given path, else by its recorded one."""
    from semreg.io.files import read_image

    described = result.record.inputs[role]
    path = Path(given) if given is not None else result.located(role)
    if path is None or not path.exists():
        raise ImageError(f"expected the {role} image at {path}, there is no such file: say where it is with --{role}")
    image = read_image(path, series=None if given is not None else described.series)
    if image.sha256 != described.sha256:
        notes.append(f"The {role} image has changed since the registration: its checksum differs from the record's.")
    return image


def _named(result: Result, role: str, notes: list[str]) -> list[Path]:
    """The files of a role that the evaluation read; none of them where one is gone, and a note where one is another."""
    from semreg.io.files import checksum
    from semreg.transforms import chosen

    read = () if result.evaluation is None else result.evaluation.inputs.get(role, ())
    paths = [locate(each.path, result.place.path) for each in read]
    for each, path in zip(read, paths, strict=True):
        file = chosen(path)[0]
        if not file.exists():
            notes.append(f"{path}, which the evaluation read, is no longer there: the pictures do without it.")
            return []
        if each.sha256 != checksum(file):
            notes.append(f"{path} has changed since the evaluation: the pictures show it as it is now.")
    return paths


def _initial(result: Result, grid: Grid, notes: list[str]) -> Field | None:
    """Where the evaluation says that the images lay before; None for what their headers say."""
    from semreg.transforms import read_chain

    paths = _named(result, "initial", notes)
    return read_chain(paths).field_on(grid) if paths else None
