"""One registration: which files go in, which settings hold, and the words that say so to ``semreg slicer``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from SemRegLib.programs import OPEN

FORMAT = "nrrd"
"""Of the volumes that semreg writes."""


@dataclass(frozen=True)
class Job:
    """What is registered, and how; of a setting that is None or ``default`` semreg decides."""

    fixed: Path
    moving: Path
    folder: Path
    """For the results."""
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    fixed_landmarks: Path | None = None
    moving_landmarks: Path | None = None
    preset: str = OPEN
    align: str = OPEN
    model: str = ""
    models: Path | None = None
    """Folder with fetched models."""
    device: str = "auto"
    fast: bool = False

    def words(self) -> list[str]:
        """The words after ``semreg slicer``."""
        given = {
            "--fixed_mask": self.fixed_mask,
            "--moving_mask": self.moving_mask,
            "--fixed_landmarks": self.fixed_landmarks,
            "--moving_landmarks": self.moving_landmarks,
            "--preset": self.preset,
            "--align": self.align,
            "--model": self.model or None,
            "--models": self.models,
            "--device": self.device,
        }
        words = [str(self.fixed), str(self.moving), "--output", str(self.folder), "--format", FORMAT, "--uncertainty"]
        words += [text for flag, value in given.items() if value is not None for text in (flag, str(value))]
        return [*words, *(["--fast"] if self.fast else [])]
