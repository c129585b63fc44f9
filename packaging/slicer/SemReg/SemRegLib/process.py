"""semreg in a process of its own: what it says is asked for from time to time, and nothing here waits for it."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

PROGRESS = re.compile(r"<filter-progress>([0-9.]+)</filter-progress>")
STAGE = re.compile(r"<filter-comment>([^<]*)</filter-comment>")
TAG = re.compile(r"</?filter-[a-z]+>")


@dataclass(frozen=True)
class Said:
    """One line of semreg: how far it is, which stage runs, or text for the user."""

    share: float | None = None
    stage: str = ""
    text: str = ""
    error: bool = False
    """Whether the text is from the standard error: a warning, or why there is no result."""


def parse(line: str, *, error: bool = False) -> Said | None:
    """What a line says; None: nothing."""
    line = line.strip()
    if error:
        return Said(text=line, error=True) if line else None
    share, stage = PROGRESS.fullmatch(line), STAGE.fullmatch(line)
    if share:
        return Said(share=min(1.0, float(share[1])))
    if stage:
        return Said(stage=stage[1])
    return None if not line or TAG.match(line) else Said(text=line)


class Process:
    """A registration that runs."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it.

        Args:
            words: the whole command line.
            environment: the variables of the environment; None: those of this process.
        """
        self._lines: queue.SimpleQueue[Said] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            list(words), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            encoding="utf-8", errors="replace", creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        streams = ((self._process.stdout, False), (self._process.stderr, True))
        self._readers = [threading.Thread(target=self._read, args=each, daemon=True) for each in streams]
        for reader in self._readers:
            reader.start()
        self.cancelled = False

    def _read(self, stream: IO[str], error: bool) -> None:
        with stream:
            for line in stream:
                said = parse(line, error=error)
                if said is not None:
                    self._lines.put(said)

    def news(self) -> list[Said]:
        """What was said since the last call."""
        found = []
        while not self._lines.empty():
            found.append(self._lines.get())
        return found

    def code(self) -> int | None:
        """The exit code, None while it runs or has more to say."""
        found = self._process.poll()
        return None if any(reader.is_alive() for reader in self._readers) else found

    def cancel(self) -> None:
        """End it; semreg removes what it has not finished."""
        if self._process.poll() is None:
            self.cancelled = True
            self._process.terminate()

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code when it has ended; ``subprocess.TimeoutExpired`` where it has not after ``seconds``."""
        self._process.wait(seconds)
        for reader in self._readers:
            reader.join(seconds)
        return self.code()
