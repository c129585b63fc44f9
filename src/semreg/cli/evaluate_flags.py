"""The flags of ``semreg evaluate``. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from semreg.cli.common import FailOn, JsonMessages, Private, Threads
from semreg.cli.outside import OUTSIDE_HELP, Beyond
from semreg.cli.panels import INPUT, MEASURES, MESSAGES, OUTPUT, SETTINGS, argument, flag
from semreg.cli.register_flags import Assignments
from semreg.cli.report_output import ProofFlags


class LandmarkUnit(StrEnum):
    """What the numbers of landmark files are."""

    AUTO = "auto"
    MM = "mm"
    PIXELS = "pixels"


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """What ``semreg evaluate`` is asked for."""

    sources: Annotated[
        tuple[Path, ...],
        argument(
            "What register wrote, or transforms of any tool, fixed to moving; the first is applied first.",
            "FOLDER|TRANSFORM",
        ),
    ]
    fixed: Annotated[Path | None, flag("Fixed image; that of the FOLDER's record by default.", "FILE", panel=INPUT)] = (
        None
    )
    moving: Annotated[
        Path | None, flag("Moving image; that of the FOLDER's record by default.", "FILE", panel=INPUT)
    ] = None
    fixed_series: Annotated[
        str | None, flag("Series of a folder of fixed DICOM: description or UID.", "SERIES", panel=INPUT)
    ] = None
    moving_series: Annotated[str | None, flag("The same for the moving image.", "SERIES", panel=INPUT)] = None
    fixed_landmarks: Annotated[
        tuple[Path, ...],
        flag("Points of the fixed image: csv, fcsv, mrk.json, txt, geojson; repeatable.", "FILE", panel=INPUT),
    ] = ()
    moving_landmarks: Annotated[
        tuple[Path, ...], flag("Those of the moving image in the same order; repeatable.", "FILE", panel=INPUT)
    ] = ()
    ras: Annotated[bool, flag("Points of a CSV file are RAS; LPS by default.", None, "--ras", panel=INPUT)] = False
    landmarks_in: Annotated[
        LandmarkUnit, flag("auto: pixels where CSV files belong to pictures such as PNG, mm else.", panel=INPUT)
    ] = LandmarkUnit.AUTO
    labels: Annotated[
        tuple[Path, Path] | None,
        flag("The label maps of the fixed and of the moving image.", "FIXED MOVING", panel=INPUT),
    ] = None
    names: Annotated[Path | None, flag("CSV or TSV with the columns label and name.", "FILE", panel=INPUT)] = None
    mask: Annotated[
        Path | None,
        flag("Mask of the fixed image: what of the deformation and similarity counts.", "FILE", panel=INPUT),
    ] = None
    moving_mask: Annotated[Path | None, flag("Mask of the moving image, for the verdict.", "FILE", panel=INPUT)] = None
    initial: Annotated[
        tuple[Path, ...], flag("Transform that is before; the identity by default; repeatable.", "FILE", panel=INPUT)
    ] = ()
    inverse: Annotated[Path | None, flag("The way back, for the inverse consistency.", "FILE", panel=INPUT)] = None
    outside: Annotated[Beyond, flag(OUTSIDE_HELP, panel=MEASURES)] = "identity"
    tolerance: Annotated[float, flag("Of the surface Dice, in mm.", "MM", panel=MEASURES)] = 2.0
    similarity: Annotated[
        bool, flag("Compare the intensities too.", None, "--similarity/--no-similarity", panel=MEASURES)
    ] = True
    output: Annotated[
        Path | None,
        flag("Folder for evaluation.json and .csv; the FOLDER by default.", "FOLDER", "--output", "-o", panel=OUTPUT),
    ] = None
    private: Private = False
    config: Annotated[
        Path | None, flag("Settings in TOML, over those of the FOLDER's record; none: no file.", "FILE", panel=SETTINGS)
    ] = None
    assignments: Assignments = ()
    proof: ProofFlags = field(default_factory=ProofFlags)
    fail_on: FailOn = None
    threads: Threads = None
    messages: JsonMessages = field(default_factory=JsonMessages)
    everything: Annotated[
        bool, flag("Show all measures of all labels, as the files hold them.", None, "--all", panel=MESSAGES)
    ] = False
    as_csv: Annotated[
        bool, flag("Print the rows of evaluation.csv and nothing else.", None, "--csv", panel=MESSAGES)
    ] = False

    @property
    def series(self) -> dict[str, str | None]:
        """Which series of a DICOM folder, by ``fixed`` and ``moving``."""
        return {"fixed": self.fixed_series, "moving": self.moving_series}

    @property
    def landmarks(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Files of points of the fixed and of the moving image."""
        return self.fixed_landmarks, self.moving_landmarks
