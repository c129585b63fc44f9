"""The flags of ``semreg evaluate``. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from semreg.cli.common import JsonMessages, Threads
from semreg.cli.outside import OUTSIDE_HELP, Beyond
from semreg.cli.panels import INPUT, MEASURES, MESSAGES, OUTPUT
from semreg.cli.register_flags import Assignments, Config
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
        typer.Argument(
            metavar="FOLDER|TRANSFORM",
            help="What register wrote, or transforms of any tool, fixed to moving; the first is applied first.",
        ),
    ]
    fixed: Annotated[
        Path | None,
        typer.Option(
            help="Fixed image; that of the FOLDER's record by default.", metavar="FILE", rich_help_panel=INPUT
        ),
    ] = None
    moving: Annotated[
        Path | None,
        typer.Option(
            help="Moving image; that of the FOLDER's record by default.", metavar="FILE", rich_help_panel=INPUT
        ),
    ] = None
    fixed_landmarks: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--fixed-landmarks",
            help="Points of the fixed image: csv, fcsv, mrk.json; repeatable.",
            metavar="FILE",
            rich_help_panel=INPUT,
        ),
    ] = ()
    moving_landmarks: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--moving-landmarks",
            help="Those of the moving image in the same order; repeatable.",
            metavar="FILE",
            rich_help_panel=INPUT,
        ),
    ] = ()
    ras: Annotated[
        bool, typer.Option("--ras", help="Points of a CSV file are RAS; LPS by default.", rich_help_panel=INPUT)
    ] = False
    landmarks_in: Annotated[
        LandmarkUnit,
        typer.Option(
            "--landmarks-in",
            help="auto: pixels where CSV files belong to pictures such as PNG, mm else.",
            rich_help_panel=INPUT,
        ),
    ] = LandmarkUnit.AUTO
    labels: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--labels",
            help="The label maps of the fixed and of the moving image.",
            metavar="FIXED MOVING",
            rich_help_panel=INPUT,
        ),
    ] = None
    names: Annotated[
        Path | None,
        typer.Option(
            "--names", help="CSV or TSV with the columns label and name.", metavar="FILE", rich_help_panel=INPUT
        ),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Mask of the fixed image: what of the deformation and similarity counts.",
            metavar="FILE",
            rich_help_panel=INPUT,
        ),
    ] = None
    moving_mask: Annotated[
        Path | None,
        typer.Option(help="Mask of the moving image, for the verdict.", metavar="FILE", rich_help_panel=INPUT),
    ] = None
    initial: Annotated[
        tuple[Path, ...],
        typer.Option(
            "--initial",
            help="Transform that is before; the identity by default; repeatable.",
            metavar="FILE",
            rich_help_panel=INPUT,
        ),
    ] = ()
    inverse: Annotated[
        Path | None,
        typer.Option(
            "--inverse", help="The way back, for the inverse consistency.", metavar="FILE", rich_help_panel=INPUT
        ),
    ] = None
    outside: Annotated[Beyond, typer.Option("--outside", help=OUTSIDE_HELP, rich_help_panel=MEASURES)] = "identity"
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Of the surface Dice, in mm.", metavar="MM", rich_help_panel=MEASURES)
    ] = 2.0
    similarity: Annotated[
        bool,
        typer.Option("--similarity/--no-similarity", help="Compare the intensities too.", rich_help_panel=MEASURES),
    ] = True
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for evaluation.json and .csv; the FOLDER by default.",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    config: Config = None
    assignments: Assignments = ()
    proof: ProofFlags = field(default_factory=ProofFlags)
    threads: Threads = None
    messages: JsonMessages = field(default_factory=JsonMessages)
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Show all measures of all labels, as the files hold them.", rich_help_panel=MESSAGES
        ),
    ] = False
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the rows of evaluation.csv and nothing else.", rich_help_panel=MESSAGES)
    ] = False

    @property
    def landmarks(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """Files of points of the fixed and of the moving image."""
        return self.fixed_landmarks, self.moving_landmarks
