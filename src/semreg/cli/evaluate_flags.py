"""The flags of ``semreg evaluate``. Reads nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from semreg.cli.proof import ProofOptions


class LandmarkUnit(str, Enum):
    """What the numbers of landmark files are."""

    AUTO = "auto"
    MM = "mm"
    PIXELS = "pixels"


Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER|TRANSFORM",
        help="What register wrote, or transforms of any tool, fixed to moving; the first is applied first.",
    ),
]
Fixed = Annotated[Path | None, typer.Option(help="Fixed image; that of the FOLDER's record by default.")]
Moving = Annotated[Path | None, typer.Option(help="Moving image; that of the FOLDER's record by default.")]
FixedPoints = Annotated[
    list[Path] | None,
    typer.Option("--fixed-landmarks", help="Points of the fixed image: csv, fcsv, mrk.json; repeatable."),
]
MovingPoints = Annotated[
    list[Path] | None,
    typer.Option("--moving-landmarks", help="Those of the moving image in the same order; repeatable."),
]
Ras = Annotated[bool, typer.Option("--ras", help="Points of a CSV file are RAS; LPS by default.")]
Unit = Annotated[
    LandmarkUnit,
    typer.Option("--landmarks-in", help="auto: pixels where CSV files belong to pictures such as PNG, mm else."),
]
Labels = Annotated[
    tuple[Path, Path] | None, typer.Option("--labels", help="The label maps of the fixed and of the moving image.")
]
Names = Annotated[Path | None, typer.Option("--names", help="CSV or TSV with the columns label and name.")]
Mask = Annotated[
    Path | None, typer.Option(help="Mask of the fixed image: what of the deformation and similarity counts.")
]
MovingMask = Annotated[Path | None, typer.Option(help="Mask of the moving image, for the verdict.")]
Initial = Annotated[
    list[Path] | None, typer.Option("--initial", help="Transform that is before; the identity by default; repeatable.")
]
Inverse = Annotated[Path | None, typer.Option("--inverse", help="The way back, for the inverse consistency.")]
Tolerance = Annotated[float, typer.Option("--tolerance", help="Of the surface Dice, in mm.")]
Similarity = Annotated[bool, typer.Option("--similarity/--no-similarity", help="Compare the intensities too.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder for evaluation.json and .csv; the FOLDER by default.")
]
Csv = Annotated[bool, typer.Option("--csv", help="Print the rows of evaluation.csv and nothing else.")]


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated, and how."""

    sources: tuple[Path, ...]
    """A folder of results, or transforms."""
    fixed: Path | None = None
    moving: Path | None = None
    landmarks: tuple[tuple[Path, ...], tuple[Path, ...]] = ((), ())
    ras: bool = False
    unit: LandmarkUnit = LandmarkUnit.AUTO
    labels: tuple[Path, Path] | None = None
    names: Path | None = None
    mask: Path | None = None
    moving_mask: Path | None = None
    initial: tuple[Path, ...] = ()
    inverse: Path | None = None
    tolerance_mm: float = 2.0
    similarity: bool = True
    output: Path | None = None
    config: Path | None = None
    assignments: tuple[str, ...] = ()
    proof: ProofOptions = field(default_factory=ProofOptions)
    command: tuple[str, ...] = ()
