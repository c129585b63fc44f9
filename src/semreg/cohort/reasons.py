"""Why a process failed, in one sentence, from its exit code and what it said."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from semreg.cohort.jobs import Job

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


def input_problem(job: Job, folder: Path) -> str | None:
    """A sentence if the record says that another file was read than the one the fingerprint was made of."""
    try:
        inputs = json.loads((folder / "record.json").read_text(encoding="utf-8"))["inputs"]
    except (OSError, ValueError, LookupError, TypeError):
        return "expected a record.json with the inputs, got none that can be read"
    for role, expected in job.inputs.items():
        read = inputs.get(role)
        if isinstance(read, dict) and read.get("sha256") not in (None, expected):
            return f"expected {role} to stay as it is while the batch runs, got other bytes: run the batch again"
    return None


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition("\n$ semreg ")[2]
