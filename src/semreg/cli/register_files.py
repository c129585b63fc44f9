"""The files of ``semreg register``: what is written, what is never written over, what an earlier run left.

Imports nothing heavy at its top: ``semreg --help`` must not wait for torch, SimpleITK or numpy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semreg.cli.register_flags import RegisterFlags
from semreg.cli.report_output import FIGURES, PAGE
from semreg.errors import OutputError

if TYPE_CHECKING:
    from semreg.io.atomic_output import OutputFolder
    from semreg.io.bridge import LoadedImage
    from semreg.registration.pipeline import Registration

FIGURE_NAMES = ("before_after", "checkerboard", "grid", "jacobian", "uncertainty", "convergence", "landmarks")
LATER = ("evaluation.json", "evaluation.csv", PAGE, *(f"{FIGURES}/{name}.png" for name in FIGURE_NAMES))
"""What ``semreg evaluate`` and ``report`` may have written since: it is of the transform that was there."""


def write_results(flags: RegisterFlags, result: Registration, folder: OutputFolder, pixel_type: str) -> None:
    """Write all that is no text."""
    from semreg.core.fields import Volume, jacobian_determinant
    from semreg.io import files

    files.write_image(result.warped, folder.stage(flags.images.name("warped")), flags.images.dtype or pixel_type)
    files.write_field(result.field, folder.stage(flags.images.name("field")))
    files.write_transform(result.deformation, folder.stage("transform.h5"), result.affine)
    if flags.inverse and result.inverse is not None:
        files.write_field(result.inverse, folder.stage(flags.images.name("inverse")))
        files.write_transform(result.inverse, folder.stage("inverse.h5"))
    if flags.jacobian:
        volume = Volume(jacobian_determinant(result.field)[None], result.field.grid)
        files.write_image(volume, folder.stage(flags.images.name("jacobian")), "float32")
    name = flags.images.name("uncertainty")  # the page shows it, and whoever draws the page anew reads it
    if name in flags.outputs and result.uncertainty is not None:
        files.write_image(result.uncertainty, folder.stage(name), "float32")


def write_texts(record: Mapping[str, Any], folder: OutputFolder) -> None:
    """Write the record, and the settings that were in force as a file for ``--config``."""
    from semreg.config import RegistrationConfig
    from semreg.registration.record import stable_json
    from semreg.settings import from_dict, to_toml

    settings = to_toml(from_dict(RegistrationConfig, record["settings"]))
    folder.stage("record.json").write_text(stable_json(record), encoding="utf-8")
    folder.stage("config.toml").write_text(settings, encoding="utf-8")


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
        names = json.loads((output / "record.json").read_text(encoding="utf-8"))["outputs"]
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


def describe_inputs(flags: RegisterFlags, images: Mapping[str, LoadedImage]) -> dict[str, Any]:
    """Paths and checksums of all that was read."""
    from semreg.io.files import checksum
    from semreg.transforms import chosen

    described: dict[str, Any] = {
        name: {"path": str(path), "sha256": checksum(chosen(path)[0])}
        for name, path in flags.inputs.items()
        if name not in images
    }
    for name, image in images.items():
        described[name] = {"path": str(image.path), "sha256": image.sha256, "pixel_type": image.pixel_type}
        if name in flags.pair.series:
            described[name]["series"] = flags.pair.series[name]
    return described
