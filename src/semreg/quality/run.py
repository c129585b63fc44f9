"""What the folder of a result holds: ``record.json`` and ``evaluation.json``, typed, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self, TypeAlias

from semreg.errors import ConfigError
from semreg.io.image_files import checksum
from semreg.io.records import record_of
from semreg.io.result_folder import EVALUATION, RECORD, ResultFolder
from semreg.quality.landmarks import LandmarkSummary
from semreg.quality.result import Evaluation
from semreg.quality.verdict import Verdict
from semreg.registration.result import AlignRecord, Record
from semreg.transforms import chosen


@dataclass(frozen=True, kw_only=True)
class ReadFile:
    """A file that was read."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """The file at ``path``; one of several transforms in it is named with its number, ``pair.tfm#2``."""
        return cls(path=str(path), sha256=checksum(chosen(path)[0]))


@dataclass(frozen=True, kw_only=True)
class InputFile(ReadFile):
    """The same of a registration."""

    pixel_type: str | None = None
    """Of an image."""
    series: str | None = None
    """Of a DICOM folder, where it was chosen."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What every run has."""

    inputs: Mapping[str, InputFile]
    """By their role: ``fixed``, ``moving``, ``fixed_mask``, …"""
    command: tuple[str, ...]
    versions: Mapping[str, str]
    outputs: tuple[str, ...]
    """Names of the files in the folder."""
    private: bool = False
    """Whether checksums stand in place of names, and the command line was left out."""

    @classmethod
    def of(cls, record: AlignRecord, **more: Any) -> Self:
        """The run that ``record`` is of, with all that a record alone does not know."""
        return cls(**{each.name: getattr(record, each.name) for each in fields(record)}, **more)


@dataclass(frozen=True, kw_only=True)
class AlignRun(_Run, AlignRecord):
    """A run of ``semreg align``."""


@dataclass(frozen=True, kw_only=True)
class RegisterRun(_Run, Record):
    """A run of ``semreg register``."""

    landmarks: LandmarkSummary | None = None
    verdict: Verdict | None = None
    seconds_files: dict[str, float]
    """Seconds of reading, writing, and of checks and page."""


Run: TypeAlias = RegisterRun | AlignRun


@dataclass(frozen=True, kw_only=True)
class EvaluationRun(Evaluation):
    """A run of ``semreg evaluate``: the measures, and what they were made of."""

    inputs: Mapping[str, tuple[ReadFile, ...]] = field(default_factory=dict)
    """By their role: ``transform``, ``fixed``, ``fixed_landmarks``, …"""
    command: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    verdict: Verdict | None = None
    private: bool = False
    """As of a registration."""

    @classmethod
    def of(cls, evaluation: Evaluation, **more: Any) -> EvaluationRun:
        """The run that an evaluation belongs to.

        Args:
            evaluation: the measures.
            **more: the other fields of the run, by their names.

        Returns:
            The run, with the measures and the other fields.
        """
        return cls(**{each.name: getattr(evaluation, each.name) for each in fields(evaluation)}, **more)


@dataclass(frozen=True)
class Result:
    """The folder of a registration or an alignment, and what is written in it."""

    place: ResultFolder
    record: Run
    evaluation: EvaluationRun | None

    @property
    def verdict(self) -> Verdict | None:
        """That of the evaluation, else that of the registration."""
        if self.evaluation is not None and self.evaluation.verdict is not None:
            return self.evaluation.verdict
        return self.record.verdict if isinstance(self.record, RegisterRun) else None

    def located(self, role: str) -> Path | None:
        """Where a file that the registration read is now, None for one it did not read (ConfigError: not named)."""
        given = self.record.inputs.get(role)
        if given is not None and self.record.private:
            flag = f"--{'mask' if role == 'fixed_mask' else role.replace('_', '-')}"
            raise ConfigError(
                f"expected {flag}, got none, and the record in {self.place.path} names no files (--private): add {flag}"
            )
        return None if given is None else locate(given.path, self.place.path)


def read_result(folder: str | Path) -> Result:
    """What ``semreg register`` or ``align`` and ``evaluate`` wrote into a folder.

    Args:
        folder: the folder that was given to ``-o``.

    Returns:
        The record and, where there is one, the evaluation.

    Raises:
        ConfigError: for a folder without a record that names both images, or with a record of another version.
    """
    place = ResultFolder(folder)
    found, measured = place.record(), place.evaluation()
    kind: type[Run] = RegisterRun if "jacobian" in found else AlignRun
    record = record_of(kind, found, place.path / RECORD)
    if not {"fixed", "moving"} <= set(record.inputs):
        raise ConfigError(
            f"expected a record that names both images in {place.path}, got {', '.join(record.inputs) or 'none'}: "
            "register again"
        )
    evaluation = None if measured is None else record_of(EvaluationRun, measured, place.path / EVALUATION)
    return Result(place, record, evaluation)


def locate(name: str, folder: Path) -> Path:
    """Where a file that a record names is now.

    Args:
        name: the path as the record has it, absolute or relative.
        folder: the folder of the record.

    Returns:
        The first that exists of ``name`` itself, ``name`` seen from ``folder`` or from a folder above it, and the file
        of the same name inside ``folder``, all but the number of a transform in a file; else ``name``.
    """
    path, above = Path(name), folder.resolve()
    places = [path] if path.is_absolute() else [path, *(parent / path for parent in (above, *above.parents))]
    return next((place for place in (*places, folder / path.name) if chosen(place)[0].exists()), path)
