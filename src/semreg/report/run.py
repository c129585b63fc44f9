"""What ``record.json`` holds of a run: what was done, what was read and written, and what the checks found."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from semreg.io.records import record_of
from semreg.io.result_folder import RECORD, ResultFolder
from semreg.registration.result import AlignRecord, Record


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file that was read."""

    path: str
    sha256: str
    pixel_type: str | None = None
    """Of an image."""
    series: str | None = None
    """Of a DICOM folder, where it was chosen."""


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What every run has."""

    inputs: dict[str, InputFile]
    """By their role: ``fixed``, ``moving``, ``fixed_mask``, …"""
    command: tuple[str, ...]
    versions: dict[str, str]
    outputs: tuple[str, ...]
    """Names of the files in the folder."""


@dataclass(frozen=True, kw_only=True)
class AlignRun(_Run, AlignRecord):
    """A run of ``semreg align``."""


@dataclass(frozen=True, kw_only=True)
class RegisterRun(_Run, Record):
    """A run of ``semreg register``."""

    landmarks: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    seconds_files: dict[str, float]
    """Seconds of reading, writing, and of checks and page."""

    @classmethod
    def of(cls, record: Record, **more: Any) -> RegisterRun:
        """The run that ``record`` is of, with all that a record alone does not know."""
        return cls(**{each.name: getattr(record, each.name) for each in fields(record)}, **more)


Run: TypeAlias = RegisterRun | AlignRun


def read_run(folder: ResultFolder) -> Run:
    """The run that wrote ``folder`` (ConfigError where there is none, or one of another version)."""
    found = folder.record()
    kind: type[Run] = RegisterRun if "jacobian" in found else AlignRun
    return record_of(kind, found, folder.path / RECORD)
