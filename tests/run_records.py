"""Records of runs that never ran: what ``semreg register`` would have written, as small as it may be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from semreg.config import RegistrationConfig
from semreg.io.records import stable_json
from semreg.preprocess.intensities import Treatment
from semreg.preprocess.modality import Recognised
from semreg.quality import EvaluationRun
from semreg.quality.run import InputFile, ReadFile, RegisterRun
from semreg.registration.result import FeatureDistance, Folding, PlanReport
from semreg.runtime.events import StageTime


def make_run(inputs: Mapping[str, InputFile] | None = None, **more: object) -> RegisterRun:
    """A run that read ``inputs``, with ``more`` of what a run has."""
    sides = ("fixed", "moving")
    given = {
        "device": "cpu",
        "threads": 1,
        "seed": 0,
        "settings": RegistrationConfig(),
        "modality": {side: Recognised("other", "values") for side in sides},
        "intensities": {side: Treatment() for side in sides},
        "background": 0.0,
        "alignment": None,
        "timings": {"refine": StageTime(seconds=1.0, cpu_seconds=1.0)},
        "plan": PlanReport(reasons=(), memory_bytes=1),
        "models": (),
        "peak_memory_bytes": {"process": 1},
        "similarity": FeatureDistance(distance="l2", before=1.2, after=0.4),
        "jacobian": Folding(minimum=0.98, folded_share=0.0, unfolding_passes=0),
        "inputs": inputs or {},
        "command": ("semreg", "register"),
        "versions": {},
        "outputs": (),
        "seconds_files": {},
    }
    return RegisterRun(**{**given, **more})  # type: ignore[arg-type]


def input_of(path: Path) -> InputFile:
    """A file as a record names it."""
    return InputFile(path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def write_run(folder: Path, run: RegisterRun) -> None:
    """``record.json`` as ``semreg register`` writes it."""
    (folder / "record.json").write_text(stable_json(run), encoding="utf-8")


def write_evaluation(folder: Path, run: EvaluationRun) -> None:
    """``evaluation.json`` as ``semreg evaluate`` writes it."""
    (folder / "evaluation.json").write_text(stable_json(run), encoding="utf-8")


def read_files(paths: Mapping[str, list[Path]]) -> dict[str, tuple[ReadFile, ...]]:
    """Files as an evaluation names them, by role."""
    return {role: tuple(map(ReadFile.of, given)) for role, given in paths.items()}
