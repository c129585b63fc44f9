"""What semreg has left in the folder of a result, for Slicer to load and to show."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from SemRegLib.job import FORMAT


@dataclass(frozen=True)
class Check:
    """One line of the verdict."""

    level: str
    title: str
    sentence: str


@dataclass(frozen=True)
class Result:
    """The files of a registration, and the verdict on it."""

    transform: Path
    """Points of the fixed image to the moving one, as Slicer's transform *from* parent: for the moving volume."""
    warped: Path
    uncertainty: Path | None
    """How far the displacement may be off, in mm; None: it was not estimated."""
    report: Path | None
    level: str
    """PASS, REVIEW or FAIL; empty where nothing was judged."""
    checks: tuple[Check, ...]

    @classmethod
    def read(cls, folder: Path) -> Result:
        """The result in a folder (ValueError where there is none)."""
        record = folder / "record.json"
        if not record.is_file():
            raise ValueError(f"expected a result of semreg in {folder}, there is no {record.name}: register again")
        found: Any = json.loads(record.read_text(encoding="utf-8"))
        verdict = found["verdict"] or {"level": "", "checks": []}
        checks = tuple(Check(each["level"], each["title"], each["sentence"]) for each in verdict["checks"])

        def there(name: str) -> Path | None:
            path = folder / name
            return path if path.is_file() else None

        return cls(
            transform=folder / "transform.h5",
            warped=folder / f"warped.{FORMAT}",
            uncertainty=there(f"uncertainty.{FORMAT}"),
            report=there("report.html"),
            level=str(verdict["level"]),
            checks=checks,
        )
