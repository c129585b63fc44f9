"""Kills ``semreg register`` and ``semreg batch`` with SIGKILL at random moments, starts them again, and counts.

    python kills.py [--register 40] [--batch 10] [--seed 1] [--report FILE.md]

``register`` writes over an earlier result of other settings. Of its kills a third come before a step of the final
renames, chosen at random; the others at a random time of its run. Half of the kills of ``batch`` reach all of its
processes, half the one alone that was started. Leaves with 1 where a killed run left a mixture of two results or lost a
finished pair, where a pair was computed twice, or where anything is left after the next run.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tools import semreg_versions

DATED = ("record.json", "report.html", "transform.h5", "inverse.h5", "evaluation.json", "log.txt", "done.json")
"""Files with times in them; the fields beside transforms hold the same numbers."""
OLD = ("--inverse", "--no-report", "--set", "refine.iterations=2")
NEW = ("--jacobian", "--set", "refine.iterations=4")
AT_A_STEP = """
import os, pathlib, signal, sys
from semreg.io import atomic_output
number, *arguments = sys.argv[1:]
left, publish = [int(number)], atomic_output.OutputFolder._publish
def counted(action):
    def run(*given, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return action(*given, **more)
    return run
def publish_and_die(self):
    if self._record == "record.json":
        for name in ("replace", "unlink", "mkdir"):
            setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
    publish(self)
atomic_output.OutputFolder._publish = publish_and_die
from semreg.cli import main
main(arguments)
"""
STEPS = 22
"""About as many steps as the renames of a run have."""


def main() -> None:
    """Run, kill, run again, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--register", type=int, default=40, help="kills of semreg register")
    parser.add_argument("--batch", type=int, default=10, help="kills of semreg batch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - no secret
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        place = Path(name)
        semreg("demo", "--images-only", "--size", "32", "-o", place / "pair").check_returncode()
        lines, wrong = [], 0
        for title, kill, count in (("register", kill_register, given.register), ("batch", kill_batch, given.batch)):
            found = kill(place, count, chance)
            wrong += sum(number for what, number in found.items() if what.startswith("WRONG"))
            lines += [f"## semreg {title}, killed {count} times", ""]
            lines += [f"* {what}: {number}" for what, number in sorted(found.items())] + [""]
    versions = ", ".join(f"{key} {value}" for key, value in semreg_versions().items())
    told = f"`kills.py --register {given.register} --batch {given.batch} --seed {given.seed}` with {versions}"
    text = "\n".join(["# Killed at random moments and started again", "", told, "", *lines])
    print(text)
    if given.report is not None:
        given.report.write_text(text, encoding="utf-8")
    sys.exit(1 if wrong else 0)


def semreg(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def command(*arguments: object) -> list[str]:
    """The words of the command."""
    return [sys.executable, "-m", "semreg", *map(str, arguments)]


def register(place: Path, out: Path, flags: tuple[str, ...]) -> list[str]:
    """Registering the pair into a folder."""
    pair = (place / "pair" / "fixed.nii.gz", place / "pair" / "moving.nii.gz")
    return command("register", *pair, "-o", out, "--align", "none", "--threads", 1, "-q", *flags)[3:]


def digests(folder: Path) -> dict[str, str]:
    """Checksums by relative name, of files with times in them none; without leftovers."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".semreg"))
    return {
        path.relative_to(folder).as_posix(): "" if path.name in DATED else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if not any(part.startswith(".semreg") for part in path.relative_to(folder).parts)
    }


def leftovers(folder: Path) -> list[str]:
    """What a run that was killed has left."""
    return [path.name for path in folder.rglob("*") if path.name.startswith((".semreg", ".work"))]


def kill_register(place: Path, count: int, chance: random.Random) -> Counter[str]:
    """Kill the second of two runs into one folder, and run it again."""
    found: Counter[str] = Counter()
    subprocess.run(command(*register(place, place / "old", OLD)), check=True)
    began = time.perf_counter()
    subprocess.run(command(*register(place, place / "new", NEW)), check=True)
    usual = time.perf_counter() - began
    old, new = digests(place / "old"), digests(place / "new")
    for number in range(count):
        out = place / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(place / "old", out)
        words = register(place, out, NEW)
        if number % 3 == 0:
            step = str(chance.randrange(STEPS))
            subprocess.run([sys.executable, "-c", AT_A_STEP, step, *words], check=False)
            found["killed before a step of the renames"] += 1
        else:
            kill_after(command(*words), chance.uniform(0.0, 1.05 * usual), group=True)
            found["killed at a random time"] += 1
        found[f"left after the kill: {state(out, old, new)}"] += 1
        found["leftovers after the kill"] += len(leftovers(out))
        again = subprocess.run(command(*words), capture_output=True, text=True, check=False)
        if again.returncode or digests(out) != new:
            found[f"WRONG: the next run is not the one in one go: {again.stderr[-200:]}"] += 1
        else:
            found["the next run gave the files of a run in one go, bit for bit"] += 1
        if leftovers(out):
            found[f"WRONG: left after the next run: {leftovers(out)}"] += 1
    return found


def state(out: Path, old: dict[str, str], new: dict[str, str]) -> str:
    """Which result a folder holds by its record and by its files."""
    there = digests(out)
    if there == new:
        return "the new result"
    if there == old:
        return "the old result"
    said = json.loads((out / "record.json").read_text(encoding="utf-8")) if "record.json" in there else {}
    names = [name for name in there if name not in DATED]
    mixed = any(there[name] == old.get(name) for name in names) and any(there[name] == new.get(name) for name in names)
    if said.get("unfinished") and not mixed:
        return "a folder that says it is unfinished"
    return f"WRONG: a mixture: {sorted(there)}"


def kill_batch(place: Path, count: int, chance: random.Random) -> Counter[str]:
    """Kill a batch of three pairs, and run it again until it ends."""
    table = place / "pairs.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("name", "fixed", "moving", "set.refine.iterations"))
        for number in range(3):
            rows.writerow((f"p{number}", place / "pair" / "fixed.nii.gz", place / "pair" / "moving.nii.gz", 2 + number))

    def batch(out: Path) -> list[str]:
        flags = ("--jobs", 1, "--threads", 1, "--set", "align.transform=none", "-q")
        return command("batch", table, "-o", out, *flags)

    began = time.perf_counter()
    subprocess.run(batch(place / "whole"), check=True)
    usual = time.perf_counter() - began
    whole = {name: digests(place / "whole" / name) for name in ("p0", "p1", "p2")}
    found: Counter[str] = Counter()
    for number in range(count):
        out = place / "batch-out"
        shutil.rmtree(out, ignore_errors=True)
        group = number % 2 == 0
        kill_after(batch(out), chance.uniform(0.0, usual), group=group)
        found[f"killed: {'all processes' if group else 'the first process alone'}"] += 1
        before = {name for name in whole if (out / name / "done.json").exists()}
        partly = [name for name in before if digests(out / name) != whole[name]]
        found["pairs finished before the kill"] += len(before) - len(partly)
        if partly:
            found[f"WRONG: pairs in their places that are not complete: {partly}"] += 1
        again = subprocess.run(batch(out), capture_output=True, text=True, check=False)
        third = subprocess.run(batch(out), capture_output=True, text=True, check=False)
        if again.returncode or third.returncode:
            found[f"WRONG: the batch did not go on: {again.stderr[-200:]}"] += 1
        events = [json.loads(line) for line in (out / "batch.log").read_text(encoding="utf-8").splitlines()]
        last = [event["event"] for event in events][-5:]
        finished = Counter(event["pair"] for event in events if event["event"] == "finished")
        twice = [name for name in before if finished[name] > 1] + [name for name in finished if finished[name] > 1]
        found[f"WRONG: computed twice: {twice}"] += 1 if twice else 0
        found["the third start computed nothing"] += last == ["batch-started", *["skipped"] * 3, "batch-ended"]
        same = {name: digests(out / name) for name in whole} == whole
        found["results of a batch in one go, bit for bit" if same else "WRONG: other results"] += 1
        time.sleep(1.0)  # an orphan looks for its folder ten times a second
        if leftovers(out):
            found[f"WRONG: left after the next run: {leftovers(out)}"] += 1
    return +found


def kill_after(words: list[str], seconds: float, *, group: bool) -> None:
    """Start a command and kill it, with all that it has started if ``group``."""
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=os.environ
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


if __name__ == "__main__":
    main()
