"""Why a process failed, in one sentence, from its exit code and what it said."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from semreg.batch.jobs import Job
from semreg.errors import ConfigError, SemregError

if TYPE_CHECKING:
    from semreg.quality.run import ReadFile

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
    from semreg.quality import read_result  # it brings torch, which who only starts others need not load

    try:
        result = read_result(folder)
    except ConfigError as error:
        return reason_of_error(error)
    read: list[tuple[str, ReadFile]] = list(result.record.inputs.items())
    read += [] if result.evaluation is None else _evaluated(result.evaluation.inputs)
    for role, found in read:
        if found.sha256 != job.inputs.get(role, found.sha256):
            return f"expected {role} to stay as it is while the batch runs, got other bytes: run the batch again"
    return None


def _evaluated(inputs: Mapping[str, tuple[ReadFile, ...]]) -> Iterator[tuple[str, ReadFile]]:
    """What an evaluation read, by roles as in ``Job.inputs``: it keeps several files for each name."""
    names = {"mask": ["fixed_mask"], "labels": ["fixed_labels", "moving_labels"]}
    for name, given in inputs.items():
        numbered = [f"{name}.{number}" for number in range(len(given))]
        yield from zip(names.get(name, numbered if name.endswith("_landmarks") else [name]), given, strict=False)


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition("\n$ semreg ")[2]
