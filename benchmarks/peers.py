"""Runs semreg and its peers on all pairs of a list and scores them with one scorer.

    python benchmarks/run [PAIRS.toml] [RESULTS] [--tools NAMES] [--runs N] [--report]

Each peer gets a virtual environment of its own. Every run is a process, from its start to its written files, and is
kept with its figures in RESULTS/PAIR/TOOL/RUN/run.json: what is there is not run again, unless versions, threads, the
limit or the configuration have changed, or ``--again`` is given. A failure is a result too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peer_page
import pictures
import scoring
import SimpleITK as sitk
import tools
from measure import attempt, last_lines
from pairs import load_scorer, tomllib

import report

SEMREG, BEFORE = "semreg", "before"
SEMREG_CONFIGURATION = "`semreg register` at its defaults (MIND-SSC); it writes its warped image, record and page too"
OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "can't allocate memory", "Cannot allocate memory", "not enough memory")


@dataclass(frozen=True)
class Tool:
    """A tool that is ready to run."""

    name: str
    python: Path
    versions: Mapping[str, str]
    configuration: str


def main() -> None:
    """Install, run what has not been run, write the page."""
    given = arguments()
    if not given.pairs.exists():
        sys.exit(f"expected a list of pairs, found no {given.pairs}; benchmarks/README.md says how to make one")
    listed = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    unknown = set(given.only) - {pair["name"] for pair in listed}
    if unknown:
        sys.exit(f"expected names of pairs in {given.pairs}, got {', '.join(sorted(unknown))}")
    if not given.page_only:
        ready, absent = installed(given)
        keep(given.results / "facts.json", facts(given, ready, absent))
        wanted = [pair for pair in listed if not given.only or pair["name"] in given.only]
        for run in range(1, given.runs + 1):
            for pair in wanted:
                run_pair(given, pair, ready, run)
    found = collected(given.results, [pair["name"] for pair in listed])
    print(peer_page.tables(found))
    if given.report:
        peer_page.write(found, given.report)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add, names = parser.add_argument, [SEMREG, *tools.PEERS]
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "peers", help="folder for all runs")
    add("--scorer", type=Path, default=default_scorer(), help="the file that scores: the list's, else scoring.py")
    add("--tools", default=",".join(names), metavar="NAMES", help=f"of {','.join(names)}")
    add("--venvs", type=Path, help="folder with an environment for each peer, by its name; made where absent")
    add("--only", nargs="+", default=[], metavar="PAIR", help="these pairs alone")
    add("--threads", type=int, default=1)
    add("--runs", type=int, default=1, help="runs of each tool on each pair, of which the median counts")
    add("--timeout", type=float, default=600, metavar="SECONDS", help="CPU seconds after which a run is ended")
    add("--again", action="store_true", help="run again what has been run")
    add("--page-only", action="store_true", help="run nothing: tables of what has been run")
    add("--report", type=Path, nargs="?", const=tools.RESULTS / "peers.md", help="write the page, plots, JSON")
    given = parser.parse_args()
    given.tools = given.tools.split(",")
    if not set(given.tools) <= set(names):
        parser.error(f"expected --tools of {', '.join(names)}, got {', '.join(given.tools)}")
    return given


def default_scorer() -> Path:
    """The scorer that came with the shared list, else the project's own."""
    shared = tools.SHARED / "bench" / "score.py"
    return shared if shared.exists() else Path(scoring.__file__)


def installed(given: argparse.Namespace) -> tuple[list[Tool], dict[str, str]]:
    """The tools that can run, and why the others cannot."""
    ready, absent = [], {}
    for name in given.tools:
        if name == SEMREG:
            ready.append(Tool(name, Path(sys.executable), tools.semreg_versions(), SEMREG_CONFIGURATION))
            continue
        try:
            python = tools.peer_python(name, given.venvs / name if given.venvs else tools.default_venv(name))
        except subprocess.CalledProcessError as error:
            absent[name] = (
                f"{', '.join(tools.PEERS[name].requirements)} could not be installed (exit {error.returncode})"
            )
            print(f"{name}: {absent[name]}; going on without it", file=sys.stderr, flush=True)
            continue
        ready.append(Tool(name, python, tools.peer_versions(name, python), tools.PEERS[name].configuration))
    return ready, absent


def run_pair(given: argparse.Namespace, pair: Mapping[str, Any], ready: Sequence[Tool], run: int) -> None:
    """Run all tools on a pair, and score the identity as one of them."""
    root, score = given.pairs.parent, load_scorer(given.scorer)
    folder = given.results / pair["name"]
    scaled, unit = pictures.in_mm(pictures.grey(pair, root, folder / "images"), root, folder / "images")
    axes = pictures.dimension(root / pair["fixed"])
    before = folder / BEFORE / "1"
    before.mkdir(parents=True, exist_ok=True)
    sitk.WriteTransform(sitk.Transform(axes, sitk.sitkIdentity), str(before / "transform.tfm"))
    about = {"pair": pair["name"], "what": pair.get("what", ""), "mm a unit": unit}
    scores = {name: value for name, value in score(scaled, root, before).items() if name != "name"}
    keep(before / "run.json", about | {"tool": BEFORE, "run": 1, "status": "ok", "scores": scores})
    for tool in ready:
        path = folder / tool.name / str(run)
        setting = {"versions": tool.versions, "configuration": tool.configuration} | {
            "threads": given.threads, "CPU limit": given.timeout,
        }  # fmt: skip
        if not given.again and (path / "run.json").exists() and read(path / "run.json")["setting"] == setting:
            continue
        shutil.rmtree(path, ignore_errors=True)
        supported = tool.name == SEMREG or axes in tools.PEERS[tool.name].dimensions
        found = run_tool(given, tool, scaled, path) if supported else {"status": "not supported"}
        if found["status"] == "ok":
            found |= scored(score, scaled, root, path)
        keep(path / "run.json", about | {"tool": tool.name, "run": run} | found | {"setting": setting})
        took = f"{found['usage']['cpu_seconds']:.1f} CPU s" if "usage" in found else ""
        print(f"{pair['name']}, {tool.name}, run {run}: {found['status']} {took}", file=sys.stderr, flush=True)


def run_tool(given: argparse.Namespace, tool: Tool, pair: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """How one run ended and what it took."""
    fixed, moving = (given.pairs.parent / pair[role] for role in ("fixed", "moving"))
    if tool.name == SEMREG:
        command = tools.semreg_command(fixed, moving, path, given.threads)
    else:
        command = tools.peer_command(tool.name, tool.python, fixed, moving, path, given.threads)
        if tools.PEERS[tool.name].network:
            command += ["--model", network(tool.python, given.results, pictures.dimension(fixed))]
    log, begun = path / "log.txt", {"date": now(), "load before": os.getloadavg()[0]}
    outcome = attempt(command, threads=given.threads, log=log, cpu_limit=given.timeout)
    found = begun | {"load after": os.getloadavg()[0], "usage": asdict(outcome.usage), "exit code": outcome.exit_code}
    if not outcome.exit_code:
        return found | {"status": "ok"}
    said = last_lines(log, 20)
    if outcome.usage.cpu_seconds >= given.timeout:
        status = "timeout"
    elif outcome.exit_code == -9 or any(sign in line for sign in OUT_OF_MEMORY for line in said):
        status = "out of memory"
    else:
        status = "failed"
    return found | {"status": status, "message": said[-1] if said else f"exit code {outcome.exit_code}"}


def scored(score: Any, pair: Mapping[str, Any], root: Path, path: Path) -> dict[str, Any]:
    """What the scorer says of a result; a result that it cannot read is a failure."""
    try:
        scores = {name: value for name, value in score(pair, root, path).items() if name != "name"}
    except RuntimeError as error:  # SimpleITK's
        return {"status": "failed", "message": f"unreadable: {str(error).splitlines()[-1]}"}
    if "missing" in scores:
        return {"status": "failed", "message": "wrote no transform"}
    return {"scores": scores}


def network(python: Path, results: Path, axes: int) -> Path:
    """The file of the descriptor, made once by the torch that will read it."""
    path = results / f"mind-{axes}d.pt"
    if not path.exists():
        script = tools.ROOT / "benchmarks" / "mind_network.py"
        subprocess.run([python, script, path, "--dimension", str(axes)], check=True, stderr=subprocess.DEVNULL)
    return path


def facts(given: argparse.Namespace, ready: Sequence[Tool], absent: Mapping[str, str]) -> dict[str, Any]:
    """What the page says of the measurement as a whole."""
    earlier = given.results / "facts.json"
    told = dict(read(earlier)["tools"]) if earlier.exists() else {}
    for tool in ready:
        told[tool.name] = {"versions": dict(tool.versions), "configuration": tool.configuration}
    for name, reason in absent.items():
        told[name] = {"versions": {}, "configuration": tools.PEERS[name].configuration, "absent": reason}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = report.machine(given.threads) | {"memory": f"{memory:.0f} GiB", "commit": tools.commit()}
    return {"machine": machine | {"limit": f"{given.timeout:g} CPU seconds a run"}, "tools": told}


def collected(results: Path, order: Sequence[str]) -> dict[str, Any]:
    """The facts, and all runs of the versions that they name, in the order of the list."""
    found = [read(path) for name in order for path in sorted((results / name).glob("*/*/run.json"))]
    if not found or not (results / "facts.json").exists():
        sys.exit(f"expected runs in {results}, found none")
    told = read(results / "facts.json")
    versions = {name: tool["versions"] for name, tool in told["tools"].items()}
    threads = str(told["machine"]["threads"])
    runs = [
        run for run in found
        if run["tool"] == BEFORE
        or (run["setting"]["versions"] == versions.get(run["tool"]) and str(run["setting"]["threads"]) == threads)
    ]  # fmt: skip
    return told | {"runs": runs}


def now() -> str:
    """The time, for a record."""
    return dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds")


def read(path: Path) -> dict[str, Any]:
    """What a JSON file holds."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


def keep(path: Path, what: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(what, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
