"""``done.json`` in the folder of a pair: which steps are done, for which fingerprint, and what they wrote.

It is in the folder before the folder gets its name, so a folder with it is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semreg.batch.jobs import Job, Step, file_digest
from semreg.errors import ImageError
from semreg.io.atomic_output import atomic_file
from semreg.io.records import stable_json

DONE_FILE = "done.json"
LOG_FILE = "log.txt"
"""What the commands said."""

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Done:
    """What is known of the folder of a pair."""

    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name: ``fingerprint``, ``seconds`` and ``outputs``, SHA-256 by relative path."""
    error: str | None = None
    """Why the step after these failed, or a later attempt."""

    def holds(self, folder: Path, step: Step) -> bool:
        """Whether the step was done with this fingerprint and all that it wrote is there, unchanged."""
        found = self.steps.get(step.name)
        if found is None or found["fingerprint"] != step.fingerprint:
            return False
        return all(_is_unchanged(folder / name, digest) for name, digest in found["outputs"].items())

    @property
    def outputs(self) -> set[str]:
        """Relative paths of all that the steps wrote."""
        return {name for step in self.steps.values() for name in step["outputs"]}


def read_done(folder: Path) -> Done | None:
    """What ``done.json`` says; None where there is none or where it cannot be understood."""
    try:
        found = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
        steps = {
            str(name): {
                "fingerprint": str(step["fingerprint"]),
                "seconds": float(step["seconds"]),
                "outputs": {str(path): str(digest) for path, digest in step["outputs"].items()},
            }
            for name, step in found["steps"].items()
        }
        return Done(steps=steps, error=found["error"]) if found["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write_done(folder: Path, done: Done, job: Job) -> None:
    """Write ``done.json``, as the last file. Raises OutputError."""
    content = {
        "format": FORMAT,
        "name": job.name,
        "semreg": job.semreg,
        "inputs": dict(job.inputs),
        "notes": dict(job.notes),
        "steps": {name: dict(step) for name, step in done.steps.items()},
        "error": done.error,
    }
    with atomic_file(folder / DONE_FILE) as partial:
        partial.write_text(stable_json(content), encoding="utf-8")


def write_failure(folder: Path, error: str) -> None:
    """Say in ``done.json`` that a later attempt failed; all else stays, of the results that are there.

    Raises OutputError.
    """
    content = json.loads((folder / DONE_FILE).read_text(encoding="utf-8"))
    with atomic_file(folder / DONE_FILE) as partial:
        partial.write_text(stable_json({**content, "error": error}), encoding="utf-8")


def steps_left(folder: Path, job: Job) -> tuple[Step, ...]:
    """The steps that are still to be done, in order: after one that is, all are, since they read what it writes."""
    done = read_done(folder)
    if done is None:
        return job.steps
    for number, step in enumerate(job.steps):
        if not done.holds(folder, step):
            return job.steps[number:]
    return ()


def digests_in(folder: Path) -> dict[str, str]:
    """SHA-256 of all files in a folder and below, by relative path; without the log and ``done.json``."""
    return {name: file_digest(folder / name) for name in sorted(_names(folder))}


def _names(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in (DONE_FILE, LOG_FILE):
            yield name


def _is_unchanged(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except ImageError:
        return False
