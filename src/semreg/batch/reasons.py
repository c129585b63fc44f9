"""Why a process failed, in one sentence, from its exit code and what it said."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semreg.batch.jobs import Job
from semreg.errors import SemregError
from semreg.io.result_folder import EVALUATION, RECORD

TAIL_BYTES = 16384
"""How much of the end of a log is read."""
LONGEST = 600
"""Of a sentence, in characters."""


def reason_of_failure(step: str, code: int, log: Path) -> str | None:
    """One sentence; None for the exit code 0. ``log``: what the process said last is at its end."""
    if code == 0:
        return None
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        memory = ": the machine may have had too little memory" if -code == signal.SIGKILL else ""
        return f"{step}: the process was killed by {name}{memory}; see {log.name}"
    lines = [line.strip() for line in _tail(log).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    if said is None and any(line.startswith("Traceback") for line in lines):
        said = lines[-1]
    if said is None:
        boxed = [re.sub(r"^[│|]\s*|\s*[│|]$", "", line) for line in lines if not line.startswith(("$", "╭", "╰"))]
        said = boxed[-1] if boxed else f"the process left with the code {code} and said nothing"
    text = " ".join(said.removeprefix("error: ").split())
    return f"{step}: {text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}"


def reason_of_error(error: BaseException) -> str:
    """What an error says, in one line; the name of its kind too where it is none that was foreseen."""
    text = " ".join(str(error).split())
    named = text if text and isinstance(error, (OSError, SemregError)) else f"{type(error).__name__}: {text}"
    return named if len(named) <= LONGEST else named[: LONGEST - 1] + "…"


def input_problem(job: Job, folder: Path) -> str | None:
    """A sentence if a command says that it read another file than the one the fingerprint was made of."""
    registered = _inputs(folder / RECORD)
    if registered is None:
        return "expected a record.json with the inputs, got none that can be read"
    read = [(role, each) for role, given in registered.items() for each in _checksums(given)]
    read += _evaluated(_inputs(folder / EVALUATION) or {})
    for role, found in read:
        if found != job.inputs.get(role, found):
            return f"expected {role} to stay as it is while the batch runs, got other bytes: run the batch again"
    return None


def _inputs(path: Path) -> Mapping[str, Any] | None:
    """What a file says was read, by name; None where it does not say it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["inputs"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _evaluated(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Roles as in ``Job.inputs`` and checksums, of an evaluation, which keeps a list for each name."""
    names = {"mask": ["fixed_mask"], "labels": ["fixed_labels", "moving_labels"]}
    found = []
    for name, given in inputs.items():
        sums = _checksums(given)
        numbered = [f"{name}.{number}" for number in range(len(sums))]
        found += list(zip(names.get(name, numbered if name.endswith("_landmarks") else [name]), sums, strict=False))
    return found


def _checksums(given: Any) -> list[str]:
    """The checksums of one file or of a list of files."""
    files = given if isinstance(given, list) else [given]
    return [str(each["sha256"]) for each in files if isinstance(each, dict) and each.get("sha256")]


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition("\n$ semreg ")[2]
