"""Runs many command lines of semreg cheaply, each as if in a process of its own, and says how each one ended.

A first process loads all that is heavy and forks a child; the child runs one case after the other, within limits of
address space and time. Where it dies the case is named as a crash, and the rest goes on in a new child. Knows no kind
of input: whoever wants to try one makes ``Case``s and hands them to ``run``.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MEMORY_BYTES = 1 << 30
"""Address space that one case may take beyond what is loaded."""
CPU_SECONDS = 10.0
UNFORESEEN = 70
"""The exit code of what nobody foresaw."""
PATIENCE_SECONDS = 120.0
"""How long a case may wait for something that does not come; the limit that counts is that of the processor's time."""
SAID = re.compile(r"(warning|info|error): ", re.IGNORECASE)
USAGE = re.compile(r"Usage: ")
NO_MEMORY = re.compile(r"expected enough memory|[Uu]nable to allocate|bad_alloc")
TEXTS = (".tfm", ".txt", ".csv", ".tsv", ".json")
NOT_FINITE = re.compile(rb'(?<![\w"-])[-+]?(nan|inf|infinity)(?![\w"-])', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One command line with the files that it reads; it runs in a folder of its own, so that names are short."""

    name: str
    """The kind, and what was done: ``transforms/euler.tfm/17``."""
    arguments: tuple[str, ...]
    """Of ``semreg``; what all cases share lies in ``../shared``."""
    files: dict[str, bytes] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    """Files that must be there with finite numbers where it ends with 0; those that are no text may hold anything."""
    refused: bool = False
    """Whether nothing but a refusal is right."""
    taken: bool = False
    """Whether nothing but a result is right."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    case: Case
    fault: str
    """Empty where all is well; else one of FAULTS, with details behind a colon."""
    code: int | None
    said: str
    """The end of what was written to the terminal."""


FAULTS = {
    "crash": "a signal ended the process",
    "time": "it took more than its seconds",
    "memory": "it wanted more memory than there was",
    "traceback": "an exception came out",
    "exit code": "it left with neither 0 nor 2",
    "noise": "there was no sentence, more than one, or other words before it",
    "accepted": "what is wrong was taken",
    "refused": "what is right was refused",
    "not finite": "it wrote a number that is none",
    "no file": "it ended well and wrote nothing",
}


def run(
    cases: Sequence[Case], shared: dict[str, bytes], modules: Sequence[str] = (), *, seconds: float = CPU_SECONDS
) -> list[Outcome]:
    """Run all cases and say how each ended, in their order; ``modules``: what else is loaded first."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        (folder / "shared").mkdir()
        for file, data in shared.items():
            (folder / "shared" / file).write_bytes(data)
        (folder / "cases").write_bytes(pickle.dumps([dict(vars(case)) for case in cases]))
        done = subprocess.run(
            [sys.executable, __file__, name, str(seconds), *modules], check=False, capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": name},
        )  # fmt: skip
        results = folder / "results"
        lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
        found = {each["number"]: each for each in map(json.loads, lines)}
        if len(found) != len(cases):
            raise RuntimeError(f"the harness ran {len(found)} of {len(cases)} cases: {done.stderr[-2000:]}")
    ended = [found[number] for number in range(len(cases))]
    return [Outcome(case, each["fault"], each["code"], each["said"]) for case, each in zip(cases, ended, strict=True)]


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many ended in which way: the faults by their first word, ``0`` and ``2`` what ended well."""
    found: dict[str, int] = {}
    for each in outcomes:
        name = each.fault.partition(":")[0] or str(each.code)
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def main(folder: Path, seconds: float, modules: Sequence[str]) -> None:
    """The first process: load, and fork a child as long as cases are left."""
    import importlib

    for module in ("torch", "SimpleITK", "semreg.cli", "semreg.io.files", "semreg.transforms", *modules):
        importlib.import_module(module)
    cases = [Case(**each) for each in pickle.loads((folder / "cases").read_bytes())]  # noqa: S301 - our own file
    start, alone = 0, -1
    while start < len(cases):
        end = len(cases) if alone != start else start + 1
        here = os.fork()
        if not here:
            _child(folder, cases, range(start, end), seconds)
        _, status = os.waitpid(here, 0)
        reached = int((folder / "reached").read_text(encoding="utf-8"))
        if reached == end:
            start, alone = end, -1
        elif reached != start:
            start, alone = reached, reached  # a case before it may have spoiled the memory: once more, without those
        else:
            _report(folder, reached, _death(status), None, _text(folder / "said"))
            start, alone = reached + 1, -1


def _death(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "time" if number in (signal.SIGPROF, signal.SIGALRM) else f"crash: {signal.Signals(number).name}"
    return f"crash: left with {os.waitstatus_to_exitcode(status)}"


def _child(folder: Path, cases: Sequence[Case], numbers: range, seconds: float) -> None:
    """Run the cases of these numbers, and never come back."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    said = os.open(folder / "said", os.O_RDWR | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    reached = folder / "reached"
    for number in numbers:
        reached.write_text(str(number))
        os.ftruncate(said, 0)
        os.lseek(said, 0, os.SEEK_SET)
        place = folder / f"case{number}"
        place.mkdir(exist_ok=True)
        os.chdir(place)
        for name, data in cases[number].files.items():
            place.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            place.joinpath(name).write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
        code, fault = _ended(cases[number].arguments)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = _text(folder / "said")
        _report(folder, number, fault or _judged(cases[number], code, text), code, text)
        os.chdir(folder)
        shutil.rmtree(place, ignore_errors=True)
    reached.write_text(str(numbers.stop))
    os._exit(0)


def _ended(arguments: Sequence[str]) -> tuple[int | None, str]:
    """The exit code of a command line, and the fault where an exception came out of it."""
    from semreg.cli import main as semreg

    try:
        semreg(arguments)
        code: int | None = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as error:  # noqa: BLE001 - whatever comes is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"traceback: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
    return code, ""


def _judged(case: Case, code: int | None, said: str) -> str:  # noqa: PLR0911 - one line a fault
    if code == UNFORESEEN:
        return f"traceback: {said[-200:]}"
    if code not in (0, 2):
        return f"exit code: {code}"
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code == 2 and NO_MEMORY.search(said):
        return "memory"
    if code == 2 and not USAGE.match(said):
        strange = [line for line in said.splitlines() if line.strip() and not SAID.match(line)]
        if len(errors) != 1 or strange:
            return f"noise: {len(errors)} sentences, {strange[:2]}"
    if (code == 0 and case.refused) or (code == 2 and case.taken):
        return "accepted" if case.refused else "refused"
    for name in case.outputs if code == 0 else ():
        if not Path(name).is_file():
            return f"no file: {name}"
        found = NOT_FINITE.search(Path(name).read_bytes()) if name.endswith(TEXTS) else None
        if found is not None:
            return f"not finite: {found[0]!r} in {name}"
    return ""


def _text(path: Path) -> str:
    return path.read_bytes()[-20_000:].decode(errors="backslashreplace") if path.exists() else ""


def _report(folder: Path, number: int, fault: str, code: int | None, said: str) -> None:
    with (folder / "results").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"number": number, "fault": fault, "code": code, "said": said[-2000:]}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
