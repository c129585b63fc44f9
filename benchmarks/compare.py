"""Sets semreg beside convexAdam 0.2.0: CPU seconds, memory and landmark error on phantom pairs, in one run.

    python compare.py [--sizes 128 192] [--runs 3] [--threads 1] [--venv VENV]

The tools take turns, each run a process of its own from its start to its written files. Leaves with 1 if a bar is
missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import scoring
import tools
from measure import Usage, measure, median
from phantoms import phantom_pair

import report

TOOLS = ("semreg", "convexAdam")
BARS = {"CPU s": 0.25, "peak above torch, GB": 0.5, "TRE mean, mm": 0.9}
"""The largest ratio semreg / convexAdam to reach."""


def main() -> None:
    """Run all, print the tables, write them as Markdown and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 192], help="voxels an axis")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool, of which the median counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--venv", type=Path, default=tools.default_venv("convexadam"), help="convexAdam's, made if absent"
    )
    parser.add_argument("--results", type=Path, default=tools.RESULTS, help="folder for compare.md and compare.json")
    given = parser.parse_args()
    pythons = {"semreg": Path(sys.executable), "convexAdam": tools.peer_python("convexadam", given.venv)}
    facts = report.machine(given.threads) | {
        "runs": f"{given.runs} of each tool in turn, medians",
        "semreg": report.versions_line(tools.semreg_versions()),
        "convexAdam": report.versions_line(tools.peer_versions("convexadam", pythons["convexAdam"])),
    }
    torch = {tool: torch_alone(python, given.runs, given.threads) for tool, python in pythons.items()}
    tables, kept = [], []
    for size in given.sizes:
        runs, scores = run_size(size, given, pythons["convexAdam"])
        figures = {tool: figures_of(median(runs[tool]), torch[tool], scores[tool]) for tool in TOOLS}
        tables.append((size, rows_of(figures, scores["before"])))
        kept.append(
            {
                "size": size,
                "before": scores["before"],
                "figures": figures,
                "runs": {tool: [asdict(usage) for usage in usages] for tool, usages in runs.items()},
            }
        )
    text = f"# semreg beside convexAdam\n\n{report.bullets(facts)}"
    header = ["median", *TOOLS, "semreg / convexAdam", "bar"]
    for size, rows in tables:
        text += f"\n## {size} × {size} × {size} voxels\n\n{report.markdown_table(header, rows)}"
    print(text)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "compare.md").write_text(text, encoding="utf-8")
    everything = {"facts": facts, "torch_alone": {tool: asdict(torch[tool]) for tool in TOOLS}, "sizes": kept}
    (given.results / "compare.json").write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if "MISSED" in text else 0)


def torch_alone(python: Path, runs: int, threads: int) -> Usage:
    """What a process takes that only imports torch."""
    command: list[str | Path] = [python, "-c", "import torch"]
    return median([measure(command, threads=threads, log=tools.OUT / "compare" / "torch.txt") for _ in range(runs)])


def run_size(
    size: int, given: argparse.Namespace, python: Path
) -> tuple[dict[str, list[Usage]], dict[str, dict[str, float]]]:
    """Run both tools in turn on the pair of ``size``; what each run took, and the scores of the last results."""
    pair = phantom_pair(size)
    fixed, moving = pair / "fixed.nii.gz", pair / "moving.nii.gz"
    folders = {tool: tools.OUT / "compare" / f"{size}-{tool}" for tool in TOOLS}
    commands = {
        "semreg": tools.semreg_command(fixed, moving, folders["semreg"], given.threads),
        "convexAdam": tools.peer_command("convexadam", python, fixed, moving, folders["convexAdam"], given.threads),
    }
    runs: dict[str, list[Usage]] = {tool: [] for tool in TOOLS}
    for i in range(given.runs):
        for tool in TOOLS:
            shutil.rmtree(folders[tool], ignore_errors=True)
            log = tools.OUT / "compare" / f"{size}-{tool}.txt"
            runs[tool].append(measure(commands[tool], threads=given.threads, log=log))
            print(f"{size}: run {i + 1}, {tool}: {runs[tool][-1].cpu_seconds:.1f} CPU s", file=sys.stderr, flush=True)
    scores = {tool: scoring.score_phantom(folders[tool], pair) for tool in TOOLS}
    return runs, scores | {"before": scoring.score_before(pair)}


def figures_of(usage: Usage, torch: Usage, score: Mapping[str, float]) -> dict[str, float]:
    """All figures of one tool on one pair, named as in the table."""
    return {
        "CPU s": usage.cpu_seconds,
        "wall s": usage.wall_seconds,
        "peak, GB": usage.peak_bytes / 1e9,
        "peak above torch, GB": (usage.peak_bytes - torch.peak_bytes) / 1e9,
        **score,
    }


def rows_of(figures: Mapping[str, Mapping[str, float]], before: Mapping[str, float]) -> list[list[str]]:
    """The lines of the table of one size."""
    rows = []
    for name, ours in figures["semreg"].items():
        theirs = figures["convexAdam"][name]
        label = f"{name} ({before[name]:.2f} before)" if name in before else name
        row = [label, report.number(ours), report.number(theirs)]
        if name == scoring.FOLDED:
            row += ["-", f"0: {report.holds(ours == 0)}"]
        else:
            bar = BARS.get(name)
            judged = "" if bar is None else f"≤ {bar:g}: {report.holds(ours <= bar * theirs)}"
            row += [report.number(ours / theirs), judged]
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
