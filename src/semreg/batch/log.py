"""What a batch writes down while it runs: ``batch.log``, one JSON object a line, and ``batch.json``, how it stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from semreg.errors import OutputError
from semreg.io.atomic_output import atomic_file
from semreg.io.records import stable_json

LOG_FILE = "batch.log"
STATE_FILE = "batch.json"

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened: a line of ``batch.log``."""

    event: str
    """``batch-started``, ``batch-ended``; of a pair ``started``, ``finished``, ``skipped``, ``failed``, ``stopped``."""
    pair: str | None = None
    seconds: float | None = None
    """Wall time of the pair."""
    worker: str | None = None
    steps: tuple[str, ...] = ()
    """What was run, ``register`` and ``evaluate``."""
    error: str | None = None


OnEvent = Callable[[Event], None]


@dataclass
class Journal:
    """Writes every event down, from any thread, and keeps the state of each pair."""

    folder: Path
    pairs: Sequence[str]
    about: Mapping[str, Any]
    """What else ``batch.json`` says: the command, the version, the threads of each pair."""
    hook: OnEvent | None = None
    _state: dict[str, dict[str, Any]] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """All pairs wait at first."""
        self._state = {name: {"name": name, "state": "waiting"} for name in self.pairs}

    def remember(self, before: Mapping[str, Any], names: Sequence[str]) -> None:
        """Keep how the pairs called ``names`` stood in an earlier ``batch.json``."""
        known = {entry["name"]: entry for entry in before.get("pairs", [])}
        with self._mutex:
            self._state |= {name: known.get(name, {"name": name, "state": "waiting"}) for name in names}

    def __call__(self, event: Event) -> None:
        """Write an event to the log and, if it is one of a pair, the state; raises OutputError."""
        with self._mutex:
            self._append(event)
            if event.pair is not None:
                known = {"seconds": event.seconds, "worker": event.worker, "error": event.error}
                said = {name: value for name, value in known.items() if value is not None}
                state = "running" if event.event == "started" else event.event
                self._state[event.pair] = {"name": event.pair, "state": state, **said}
            self.save()
            if self.hook is not None:
                self.hook(event)

    def settle(self) -> None:
        """What ran when the batch was interrupted waits again."""
        with self._mutex:
            for name, state in self._state.items():
                if state["state"] == "running":
                    self._state[name] = {"name": name, "state": "waiting"}

    def save(self) -> None:
        """Write ``batch.json``; raises OutputError."""
        content = {"format": FORMAT, **self.about, "pairs": list(self._state.values())}
        with atomic_file(self.folder / STATE_FILE) as partial:
            partial.write_text(stable_json(content), encoding="utf-8")

    def _append(self, event: Event) -> None:
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event.event,
        }
        if event.pair is not None:
            line["pair"] = event.pair
        more = {"worker": event.worker, "seconds": event.seconds, "steps": list(event.steps), "error": event.error}
        line |= {name: value for name, value in more.items() if value not in (None, [])}
        try:
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            path = self.folder / LOG_FILE
            raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """What ``batch.json`` says; empty where there is none or where it cannot be understood."""
    try:
        found = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}
