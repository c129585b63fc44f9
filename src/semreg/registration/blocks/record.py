"""What is written of a blockwise registration. Computes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from semreg.config import RegistrationConfig
from semreg.io.records import Recorded, record_of, stable_json
from semreg.registration.blocks.store import Store
from semreg.registration.dense.refine import LevelReport
from semreg.registration.result import Folding, Record

SUMMARY = "summary.json"


@dataclass(frozen=True, kw_only=True)
class LevelSummary(Recorded):
    """One resolution that was registered in blocks."""

    source: int
    """Resolution of the fixed image, 0 is the finest."""
    pooling: int
    size: tuple[int, ...]
    """Voxels of the working grid, x y z."""
    spacing_mm: float
    blocks: int
    control_points: tuple[int, ...]
    compared: str
    distance: str
    report: LevelReport
    evaluations: int
    """Of the objective, by this run."""
    seconds: float
    """By this run."""
    features_bytes: int
    """Of the features of both images on disk."""
    nodes: tuple[int, ...] = ()
    """Of the search before the descent, x y z; empty: there was none."""

    def write(self, store: Store) -> None:
        """Keep it for a run that goes on."""
        store.write_text(SUMMARY, stable_json(self))

    @classmethod
    def read(cls, store: Store) -> Self:
        """What was kept."""
        return record_of(cls, json.loads(store.read_text(SUMMARY)), store.folder / SUMMARY)


@dataclass(frozen=True, kw_only=True)
class LargeRecord(Recorded):
    """A whole blockwise registration."""

    fixed: str
    moving: str
    plan: tuple[str, ...]
    settings: RegistrationConfig
    """As they were given; those in force for the part in one piece are in its record."""
    coarse: Record
    levels: tuple[LevelSummary, ...]
    jacobian: Folding
    """Of the deformation, at the voxels of the fixed image."""
    workers: int
    peak_memory_bytes: int
    """The most that one process has held, the one that descends included."""
    seconds: float
    """Of this run; one that was ended before does not count."""
    outputs: tuple[str, ...]
    versions: dict[str, str]
    command: tuple[str, ...] = ()
    command_kind: str = "large"
