"""What a batch writes down while it runs: ``batch.log``, one JSON object a line, and ``batch.json``, how it stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from semreg.errors import OutputError
from semreg.io.atomic_output import atomic_file
from semreg.io.records import plain, stable_json, understood

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


@dataclass(frozen=True, kw_only=True)
class PairState:
    """How a pair stands."""

    name: str
    state: str = "waiting"
    """``waiting``, ``running``, or the event it ended with."""
    seconds: float | None = None
    worker: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """``batch.json``: how a batch stands."""

    semreg: str = ""
    """The version."""
    threads: int = 0
    """Of each pair; 0: no batch has run."""
    command: tuple[str, ...] = ()
    source: str = ""
    private: bool = False
    """Whether names of files, machines and users are left out."""
    pairs: tuple[PairState, ...] = ()
    format: int = FORMAT

    @property
    def by_name(self) -> dict[str, PairState]:
        """The pairs."""
        return {pair.name: pair for pair in self.pairs}


@dataclass
class Journal:
    """Writes every event down, from any thread, and keeps the state of each pair."""

    folder: Path
    pairs: Sequence[str]
    about: BatchState
    """What else ``batch.json`` says."""
    hook: OnEvent | None = None
    _state: dict[str, PairState] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """All pairs wait at first."""
        self._state = {name: PairState(name=name) for name in self.pairs}

    def remember(self, before: BatchState, names: Sequence[str]) -> None:
        """Keep how the pairs called ``names`` stood in an earlier ``batch.json``."""
        known = before.by_name
        with self._mutex:
            self._state |= {name: known.get(name, PairState(name=name)) for name in names}

    def __call__(self, event: Event) -> None:
        """Write an event to the log and, if it is one of a pair, the state; raises OutputError."""
        if self.about.private:
            event = replace(event, worker=None)
        with self._mutex:
            self._append(event)
            if event.pair is not None:
                self._state[event.pair] = PairState(
                    name=event.pair, state="running" if event.event == "started" else event.event,
                    seconds=event.seconds, worker=event.worker, error=event.error,
                )  # fmt: skip
            self.save()
            if self.hook is not None:
                self.hook(event)

    def settle(self) -> None:
        """What ran when the batch was interrupted waits again."""
        with self._mutex:
            for name, state in self._state.items():
                if state.state == "running":
                    self._state[name] = PairState(name=name)

    def save(self) -> None:
        """Write ``batch.json``; raises OutputError."""
        state = replace(self.about, pairs=tuple(self._state.values()))
        with atomic_file(self.folder / STATE_FILE) as partial:
            partial.write_text(stable_json(state), encoding="utf-8")

    def _append(self, event: Event) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        line |= {name: value for name, value in plain(event).items() if value not in (None, [])}
        try:
            with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            path = self.folder / LOG_FILE
            raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error


def read_state(folder: Path) -> BatchState:
    """What ``batch.json`` says; that of no batch where there is none or where it cannot be understood."""
    found = understood(BatchState, folder / STATE_FILE)
    return found if found is not None and found.format == FORMAT else BatchState()
