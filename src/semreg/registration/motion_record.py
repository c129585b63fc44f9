"""What is written of the motion in a series: a record, and a table with a row a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from semreg.io.records import Recorded, stable_json, versions
from semreg.registration.carried import CarriedSeries, Drift
from semreg.registration.motion import FrameMotion, Motion, MotionOptions
from semreg.runtime.texts import rows_text


@dataclass(frozen=True, kw_only=True)
class MotionRecord(Recorded):
    """How the frames of a series have moved, and how far carried labels drift."""

    series: tuple[str, ...]
    options: MotionOptions
    frames: tuple[FrameMotion, ...]
    framewise_mm: float
    """Mean over the frames but the first."""
    apart_mm: tuple[float, ...] = ()
    """Of carried labels, a number a frame: how far both ways there disagree."""
    drift: tuple[Drift, ...] = ()
    versions: dict[str, str]
    command: tuple[str, ...]

    @classmethod
    def of(
        cls, found: Motion, carried: CarriedSeries | None, series: Sequence[Path], command: tuple[str, ...]
    ) -> MotionRecord:
        """Of a result and the files that it is of."""
        return cls(
            series=tuple(map(str, series)), options=found.options, frames=found.frames,
            framewise_mm=fmean(each.framewise_mm for each in found.frames[1:]),
            apart_mm=() if carried is None else carried.apart_mm,
            drift=() if carried is None else carried.drift,
            versions=versions(), command=command,
        )  # fmt: skip

    def text(self) -> str:
        """As JSON."""
        return stable_json(self)

    def table(self) -> str:
        """As CSV, a row a frame."""
        names = "xyz"[: len(self.frames[0].shift_mm)]
        turns = names if len(names) == 3 else "z"
        titles = [
            "frame", *(f"shift_{name}_mm" for name in names), *(f"rotation_{name}_deg" for name in turns),
            "deformation_mm", "framewise_mm", *(["labels_apart_mm"] if self.apart_mm else []),
        ]  # fmt: skip
        rows = [titles]
        for number, each in enumerate(self.frames):
            values = [*each.shift_mm, *each.rotation_deg, each.deformation_mm, each.framewise_mm]
            values += self.apart_mm[number : number + 1]
            rows.append([str(each.frame), *(f"{value:.4f}" for value in values)])
        return rows_text(rows)
