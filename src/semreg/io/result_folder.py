"""The folder of one result: the names of its files, and where they are. The one place that knows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from semreg.errors import ConfigError, ImageError
from semreg.io.atomic_output import UNFINISHED_KEY
from semreg.runtime.texts import parse_json, read_text, shown

TRANSFORM, INVERSE = "transform.h5", "inverse.h5"
RECORD, CONFIG = "record.json", "config.toml"
EVALUATION, EVALUATION_TABLE = "evaluation.json", "evaluation.csv"
PAGE, FIGURES = "report.html", "figures"
DICOM, REGISTRATION = "dicom", "registration.dcm"
"""The folder of the warped image as a DICOM series, and the registration object in it."""
KEYPOINTS = ("keypoints_fixed", "keypoints_moving")
"""Points that were found in both images, without the ending."""
FORMATS = ("nii.gz", "nii", "nrrd", "mha")
"""Endings of the images."""


def warped_contrast(number: int) -> str:
    """What the warped image of a further contrast is called, the first of them 1."""
    return f"warped_contrast_{number}"


class ResultFolder:
    """What ``semreg register``, ``align`` and ``evaluate`` write, by what it is."""

    def __init__(self, path: str | Path) -> None:
        """The folder at ``path``, which need not be there yet."""
        self.path = Path(path)

    @property
    def transform(self) -> Path:
        """The transform, fixed → moving."""
        return self.path / TRANSFORM

    @property
    def inverse(self) -> Path:
        """The transform back, moving → fixed."""
        return self.path / INVERSE

    def find_image(self, name: str) -> Path | None:
        """The image called ``name``, such as ``warped``, in whichever format it was written; None: there is none."""
        paths = (self.path / f"{name}.{ending}" for ending in FORMATS)
        return next((path for path in paths if path.is_file()), None)

    def image(self, name: str) -> Path:
        """The same (ImageError where there is none)."""
        path = self.find_image(name)
        if path is None:
            raise ImageError(
                f"expected an image called {name} in {self.path}, there is none: register again, or name another folder"
            )
        return path

    def record(self) -> dict[str, Any]:
        """What ``record.json`` holds (ConfigError where there is none)."""
        found = read_json(self.path / RECORD)
        if found is None:
            raise ConfigError(
                f"expected the output folder of semreg register with a {RECORD}, got {self.path}: there is none; "
                "name the folder that was given to -o"
            )
        if found.get(UNFINISHED_KEY):
            raise ConfigError(
                f"expected a complete result in {self.path}, got one whose run was ended while its files came into "
                "their places: give its command again"
            )
        return found

    def evaluation(self) -> dict[str, Any] | None:
        """What ``evaluation.json`` holds, None where there is none, or where its files have not all come."""
        found = read_json(self.path / EVALUATION)
        return None if found is None or found.get(UNFINISHED_KEY) else found


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file, None where there is no file. Raises ConfigError for anything else."""
    if not os.path.lexists(path):
        return None
    try:
        value = parse_json(read_text(path, "JSON"))
    except ValueError as error:
        reason = error if isinstance(error, ConfigError) else f"expected JSON in {path}, got: {shown(str(error))}"
        raise ConfigError(f"{reason}; write the file again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"expected an object in {path}, got {type(value).__name__}: write the file again")
    return value
