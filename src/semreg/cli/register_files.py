"""The files of ``semreg register``: what is written, what is never written over, what an earlier run left.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from semreg.cli.register_flags import RegisterFlags
from semreg.errors import OutputError
from semreg.io.result_folder import (
    CONFIG,
    EVALUATION,
    EVALUATION_TABLE,
    FIGURES,
    INVERSE,
    PAGE,
    RECORD,
    TRANSFORM,
)

if TYPE_CHECKING:
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LoadedImage
    from semreg.quality.run import InputFile, Run
    from semreg.registration.result import Registration

FIGURE_NAMES = ("before_after", "checkerboard", "grid", "jacobian", "uncertainty", "convergence", "landmarks")
LATER = (EVALUATION, EVALUATION_TABLE, PAGE, *(f"{FIGURES}/{name}.png" for name in FIGURE_NAMES))
"""What ``semreg evaluate`` and ``report`` may have written since: it is of the transform that was there."""


def write_results(flags: RegisterFlags, result: Registration, folder: OutputFolder, pixel_type: str) -> None:
    """Write all that is no text."""
    from semreg.io import files

    files.write_image(result.warped, folder.stage(flags.images.name("warped")), flags.images.dtype or pixel_type)
    files.write_field(result.field, folder.stage(flags.images.name("field")))
    files.write_transform(result.deformation, folder.stage(TRANSFORM), result.affine)
    if flags.inverse and result.inverse is not None:
        files.write_field(result.inverse, folder.stage(flags.images.name("inverse")))
        files.write_transform(result.inverse, folder.stage(INVERSE))
    if flags.jacobian:
        files.write_image(result.jacobian(), folder.stage(flags.images.name("jacobian")), "float32")
    name = flags.images.name("uncertainty")  # the page shows it, and whoever draws the page anew reads it
    if name in flags.outputs and result.uncertainty is not None:
        files.write_image(result.uncertainty, folder.stage(name), "float32")


def write_texts(run: Run, folder: OutputFolder) -> None:
    """Write the record, and the settings that were in force as a file for ``--config``."""
    from semreg.io.records import stable_json
    from semreg.settings import to_toml

    folder.stage(RECORD).write_text(stable_json(run), encoding="utf-8")
    folder.stage(CONFIG).write_text(to_toml(run.settings), encoding="utf-8")


def check_outputs(flags: RegisterFlags) -> None:
    """Refuse to write over an input (OutputError)."""
    places = {(flags.pair.output / name).resolve(): name for name in flags.outputs}
    for role, path in flags.inputs.items():
        if path.resolve() in places:
            raise OutputError(
                f"expected another output folder: {path}, the {role.replace('_', ' ')}, would be written over"
            )


def written_before(output: Path) -> list[str]:
    """Names of the files that an earlier run wrote into the folder, by its record; none where there is no record."""
    try:
        names = json.loads((output / RECORD).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    parts = {str(name): Path(str(name)).parts for name in names}
    own = [name for name, each in parts.items() if len(each) == 1 or (len(each) == 2 and each[0] == FIGURES)]
    return [*own, *LATER]


def remove_stale(flags: RegisterFlags, before: list[str], written: Collection[str]) -> None:
    """Remove what an earlier run left and this one did not write: an old inverse beside a new transform misleads."""
    read = {path.resolve() for path in flags.inputs.values()}
    for name in before:
        path = flags.pair.output / name
        if name not in written and path.resolve() not in read:
            path.unlink(missing_ok=True)


def describe_inputs(flags: RegisterFlags, images: Mapping[str, LoadedImage]) -> dict[str, InputFile]:
    """Paths and checksums of all that was read."""
    from semreg.io.files import checksum
    from semreg.quality.run import InputFile
    from semreg.transforms import chosen

    described = {
        name: InputFile(path=str(path), sha256=checksum(chosen(path)[0]))
        for name, path in flags.inputs.items()
        if name not in images
    }
    for name, image in images.items():
        described[name] = InputFile(
            path=str(image.path), sha256=image.sha256, pixel_type=image.pixel_type, series=flags.pair.series.get(name)
        )
    return described
