"""Registers every 3-D pair of a list of real images with the defaults and sets the scores beside convexAdam's.

    python pairs.py [PAIRS.toml] [RESULTS] [--only NAME ...]

Every pair is one process ``semreg register``, with one and the same configuration. convexAdam's scores are
those that ``benchmarks/run --report`` has written. Leaves with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import tools
from measure import measure
from pictures import dimension

import report

NEEDS_ALIGNMENT = ("abdomen_mr_ct",)
"""Pairs that no deformable registration alone can do."""

WORST_CHANGE = 10.0
"""No pair may be worse by more than this, percent of convexAdam's figure."""
TRE_GAIN = 10.0
"""Percent by which the mean landmark error is to be lower."""
DICE_GAIN = 0.02
"""By how much the mean Dice is to be higher."""


def main() -> None:
    """Register, score, print."""
    given = arguments()
    if not given.pairs.exists() or not given.scorer.exists():
        print(f"skipped: {given.pairs} and {given.scorer} are needed, and they are not both there")
        return
    root, score = given.pairs.parent, load_scorer(given.scorer)
    pairs = chosen(given, root)
    reference = reference_scores(given.reference)
    rows: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        folder = given.results / pair["name"]
        if not given.score_only:
            command = tools.semreg_command(
                root / pair["fixed"], root / pair["moving"], folder, given.threads, given.set
            )
            run_pair(command, folder, given.threads)
        rows[pair["name"]] = score(pair, root, folder) | usage_of(folder)
        print(f"{pair['name']}: done", flush=True)
    text, good = summary(rows, reference)
    print(text)
    if given.report:
        facts = report.machine(given.threads) | {
            "semreg": report.versions_line(tools.semreg_versions()),
            "settings": ", ".join(given.set) or "the defaults",
        }
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(f"# Real pairs\n\n{report.bullets(facts)}\n{text}", encoding="utf-8")
    (given.results / "scores.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if good else 1)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "pairs", help="folder for the results")
    add("--scorer", type=Path, default=tools.SHARED / "bench" / "score.py", help="the file that scores")
    add("--only", nargs="+", default=[], metavar="NAME", help="these pairs alone")
    add("--exclude", nargs="*", default=list(NEEDS_ALIGNMENT), metavar="NAME", help="not these")
    add("--threads", type=int, default=1)
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="try a setting; the bars are for the defaults")
    add("--score-only", action="store_true", help="score the results that are there")
    add("--reference", type=Path, default=tools.RESULTS / "peers.json", help="runs of convexAdam")
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def load_scorer(path: Path) -> Any:
    """The function ``score`` of a scorer file."""
    spec = importlib.util.spec_from_file_location("scorer", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"expected a Python file, got {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score


def chosen(given: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """The pairs to run: 3-D, not excluded, and among ``--only`` if that is given."""
    pairs = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    unknown = set(given.only) - {pair["name"] for pair in pairs}
    if unknown:
        sys.exit(f"expected names of pairs in {given.pairs}, got {', '.join(sorted(unknown))}")
    if given.only:
        return [pair for pair in pairs if pair["name"] in given.only]
    return [pair for pair in pairs if pair["name"] not in given.exclude and dimension(root / pair["fixed"]) == 3]


def reference_scores(path: Path) -> dict[str, Any]:
    """Scores of convexAdam by pair."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    found = {run["pair"]: run["scores"] for run in runs if run["tool"] == "convexadam" and run["status"] == "ok"}
    if not found:
        print("no figures of convexAdam: benchmarks/run --tools convexadam --report writes them")
    return found


def run_pair(command: Sequence[str | Path], folder: Path, threads: int | None) -> None:
    """Run a tool and leave what it took beside its results."""
    folder.mkdir(parents=True, exist_ok=True)
    usage = measure(command, threads=threads, log=folder / "log.txt")
    figures = {"CPU s": usage.cpu_seconds, "wall s": usage.wall_seconds, "peak GB": usage.peak_bytes / 1e9}
    (folder / "usage.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")


def usage_of(folder: Path) -> dict[str, float]:
    """What the run took that left its results in ``folder``, if that is known."""
    path = folder / "usage.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def summary(rows: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Mapping[str, Any]]) -> tuple[str, bool]:
    """The tables as Markdown, and whether all bars hold."""
    both = [name for name in rows if name in reference]
    bars = [(f"{name}: folded 0 %", row["folded %"] == 0, f"{row['folded %']:.4f}") for name, row in rows.items()]
    for name in both:
        change = worse_by(rows[name], reference[name])
        bars.append((f"{name}: not worse by more than {WORST_CHANGE:g} %", change <= WORST_CHANGE, f"{change:+.1f} %"))
    groups: dict[str, list[str]] = {}
    for name in both:
        groups.setdefault(name.partition("_")[0], []).append(name)
    means = []
    for group, names in groups.items():
        figure = figure_of(rows[names[0]])
        ours, theirs = (fmean(float(table[name][figure]) for name in names) for table in (rows, reference))
        better = ours < theirs if figure == "TRE" else ours > theirs
        means.append([group, figure, report.number(ours), report.number(theirs), f"{ours - theirs:+.3f}"])
        bars.append((f"{group}: mean {figure} better", better, f"{ours:.3f} against {theirs:.3f}"))
    bars += overall_bars(rows, reference, both)
    missed = [[what, figure] for what, good, figure in bars if not good]
    text = "\n".join(
        [
            pair_table(rows, reference),
            report.markdown_table(["mean of group", "figure", "semreg", "convexAdam", "change"], means),
            f"{len(bars) - len(missed)} of {len(bars)} bars hold.\n",
            report.markdown_table(["bar missed", "figure"], missed) if missed else "",
        ]
    )
    return text, not missed and set(both) == set(rows)


def pair_table(rows: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Mapping[str, Any]]) -> str:
    """One pair a line: figure before, ours, convexAdam's, and what ours took."""
    header = ["pair", "figure", "before", "semreg", "convexAdam", "worse by %", "TRE p95", "convexAdam's"]
    header += ["folded %", "convexAdam's", "CPU s", "peak GB"]
    cells = []
    for name, row in rows.items():
        figure, other = figure_of(row), reference.get(name, {})
        cells.append(
            [
                name,
                figure,
                *(report.number(value) for value in (row[f"{figure} before"], row[figure], other.get(figure))),
                f"{worse_by(row, other):+.1f}" if other else "-",
                *(report.number(table.get("TRE p95")) for table in (row, other)),
                *(report.number(table.get("folded %"), 4) for table in (row, other)),
                report.number(row.get("CPU s"), 1),
                report.number(row.get("peak GB"), 2),
            ]
        )
    return report.markdown_table(header, cells)


def overall_bars(
    rows: Mapping[str, Mapping[str, Any]], reference: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> list[tuple[str, bool, str]]:
    """The bars on the mean over all pairs with landmarks and over all with labels."""
    bars = []
    for figure in ("TRE", "Dice"):
        scored = [name for name in names if figure_of(rows[name]) == figure]
        if not scored:
            continue
        ours, theirs = (fmean(float(table[name][figure]) for name in scored) for table in (rows, reference))
        if figure == "TRE":
            gain = 100 * (1 - ours / theirs)
            bars.append((f"mean landmark error {TRE_GAIN:g} % lower", gain >= TRE_GAIN, f"{gain:.1f} % lower"))
        else:
            gain = ours - theirs
            bars.append((f"mean Dice {DICE_GAIN:g} higher", gain >= DICE_GAIN, f"{gain:+.4f}"))
    return bars


def figure_of(row: Mapping[str, Any]) -> str:
    """What a pair is judged by: landmark error where there are landmarks, else Dice."""
    return "TRE" if "TRE" in row else "Dice"


def worse_by(row: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """How much worse the figure is than the other one's, in percent of that; negative if better."""
    figure = figure_of(row)
    before = float(other[figure])
    change = 100 * (float(row[figure]) / before - 1) if before else math.inf  # a Dice of 0 can only be better
    return change if figure == "TRE" else -change


if __name__ == "__main__":
    main()
