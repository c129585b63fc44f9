"""Shows on real pairs what alignment, inverse and transforms give, with the defaults and no hints.

    python robust.py [PAIRS.toml] [RESULTS] [--only NAME ...] [--draws N] [--resampled] [--runs N] [--report FILE]

Every run is one process ``semreg register``, scored with SimpleITK alone, but for the round trip of points, which is
``semreg apply``. Leaves with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import robust_tables as tables
import SimpleITK as sitk
import tools
from measure import Usage, measure, median
from motions import drawn_motion, move_all
from pairs import figure_of, load_scorer, run_pair, tomllib, usage_of
from pictures import in_mm
from undoing import consistency, read_points, round_trip

import report

FAR = ("abdomen_mr_ct", "histology_lesion")
MOVED = "spine_t2_t1"
TIMED = ("oasis", "liver_19_cyc_1_6", "hippocampus_007_008")
TIME = "time"
NAMES = (*FAR, *tables.EARLIER, MOVED, TIME)
"""What ``--only`` takes."""


@dataclass(frozen=True)
class Bench:
    """What all parts share."""

    given: argparse.Namespace
    root: Path
    pairs: dict[str, dict[str, Any]]
    score: Any

    def folder(self, *names: str) -> Path:
        """Folder for the results of one run."""
        return Path(self.given.results, *names)

    def wanted(self, name: str) -> bool:
        """Whether something of ``NAMES`` is to be run."""
        return not self.given.only or name in self.given.only

    def command(self, pair: Mapping[str, Any], folder: Path, *flags: str) -> list[str | Path]:
        """What registers a pair."""
        fixed, moving = self.root / pair["fixed"], self.root / pair["moving"]
        return [*tools.semreg_command(fixed, moving, folder, self.given.threads), *flags]


def main() -> None:
    """Measure, and print the tables of all that was measured into the folder so far."""
    given = arguments()
    if not given.pairs.exists() or not given.scorer.exists():
        print(f"skipped: {given.pairs} and {given.scorer} are needed, and they are not both there")
        return
    listed = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    bench = Bench(given, given.pairs.parent, {pair["name"]: pair for pair in listed}, load_scorer(given.scorer))
    figures = bench.folder("figures.json")
    for part, name, row in () if given.tables_only else measured(bench):
        keep(figures, part, name, row)
    text, good = summary(kept(figures), given.threads)
    print(text)
    if given.report:
        given.report.parent.mkdir(parents=True, exist_ok=True)
        given.report.write_text(text, encoding="utf-8")
    sys.exit(0 if good else 1)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "robust", help="folder for the results")
    add("--scorer", type=Path, default=tools.SHARED / "bench" / "score.py", help="the file that scores")
    add("--only", nargs="+", default=[], choices=NAMES, metavar="NAME", help=f"pairs, or {TIME} for the CPU seconds")
    add("--draws", type=int, default=20, help=f"random positions of {MOVED}")
    add("--resampled", action="store_true", help="resampled onto straight grids, not moved in the header")
    add("--runs", type=int, default=3, help="runs for the CPU seconds, of which the median counts")
    add("--threads", type=int, default=1)
    add("--tables-only", action="store_true", help="print the tables of what was measured before")
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def measured(bench: Bench) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The part, the name and the row of each run, as they come."""
    yield from far_pairs(bench)
    for name in filter(bench.wanted, tables.EARLIER):
        yield "near", name, tried(bench, bench.pairs[name], bench.folder(name))
    if bench.wanted(MOVED):
        yield from moved_pairs(bench, resampled=bench.given.resampled)
    if bench.wanted(TIME):
        yield from times(bench)


def kept(path: Path) -> dict[str, dict[str, Any]]:
    """What was measured so far: rows by part and name."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def keep(path: Path, part: str, name: str, row: Mapping[str, Any]) -> None:
    """Write a row into the file of all, over an earlier one of the same name."""
    found = kept(path)
    found.setdefault(part, {})[name] = row
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def summary(found: Mapping[str, dict[str, Any]], threads: int) -> tuple[str, bool]:
    """The tables as Markdown, and whether all bars hold."""
    near = {name: found["near"][name] for name in tables.EARLIER if name in found.get("near", {})}
    parts = [tables.far_part(found["far"])] if found.get("far") else []
    parts += [tables.near_part(near)] if near else []
    parts += [
        tables.draws_part(MOVED, series, found[series]) for series in ("header", "resampled") if found.get(series)
    ]
    parts += [tables.times_part(found["time"])] if found.get("time") else []
    facts = report.machine(threads) | {"semreg": report.versions_line(tools.semreg_versions())}
    bars = [bar for _, bars in parts for bar in bars]
    cells = [[what, figure, report.holds(good)] for what, good, figure in bars]
    title = f"# Real pairs that lie apart, and the way back\n\n{report.bullets(facts)}"
    held = f"## Bars\n\n{sum(good for _, good, _ in bars)} of {len(bars)} hold.\n"
    text = "\n".join([title, *(text for text, _ in parts), held, report.markdown_table(["bar", "figure", ""], cells)])
    return text, all(good for _, good, _ in bars)


def far_pairs(bench: Bench) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The pairs that lie apart, with and without an alignment."""
    for name in filter(bench.wanted, FAR):
        pair, unit = in_mm(bench.pairs[name], bench.root, bench.folder("landmarks"))
        for label, flags in ((name, ()), (f"{name}, --align none", ("--align", "none"))):
            row = tried(bench, pair, bench.folder(label.replace(", --", "-").replace(" ", "-")), *flags)
            if row["figure"] == "mm":
                row |= {"figure": "px"} | {key: row[key] / unit for key in ("before", "after") if key in row}
            yield "far", label, row | {"not aligned": bool(flags)}


def moved_pairs(bench: Bench, *, resampled: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """One pair in many random positions: in the header alone, or resampled so that the header tells nothing."""
    series = "resampled" if resampled else "header"
    generator, pair = np.random.default_rng(0), bench.pairs[MOVED]
    images = {role: bench.root / pair[role] for role in ("moving", "moving_labels")}
    for draw in range(bench.given.draws):
        motion, distance, angle = drawn_motion(generator, images["moving"])
        moved = move_all(images, motion, bench.folder(MOVED, f"{series}-{draw}-images"), resampled=resampled)
        row = tried(bench, pair | moved, bench.folder(MOVED, f"{series}-{draw}"))
        yield series, str(draw), row | {"moved mm": distance, "turned degrees": angle}


def times(bench: Bench) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """CPU seconds with the defaults and without alignment, in turn, on pairs that need none."""
    for name in TIMED:
        usages: dict[str, list[Usage]] = {"none": [], "auto": []}
        for _ in range(bench.given.runs):
            for align, found in usages.items():
                folder = bench.folder(TIME, f"{name}-{align}")
                shutil.rmtree(folder, ignore_errors=True)
                command = bench.command(bench.pairs[name], folder, "--align", align)
                found.append(measure(command, threads=bench.given.threads, log=folder.with_suffix(".txt")))
                print(f"{name} {align}: {found[-1].cpu_seconds:.1f} CPU s", file=sys.stderr, flush=True)
        medians = {align: median(found).cpu_seconds for align, found in usages.items()}
        yield "time", name, medians | {"runs": bench.given.runs}


def tried(bench: Bench, pair: Mapping[str, Any], folder: Path, *flags: str) -> dict[str, Any]:
    """Register a pair with its inverse: the row that ``robust_tables`` describes, landmark errors in mm."""
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{folder.name} ...", file=sys.stderr, flush=True)
    row: dict[str, Any] = {"figure": "mm" if "fixed_landmarks" in pair else "Dice"}
    try:
        run_pair(bench.command(pair, folder, "--inverse", *flags), folder, bench.given.threads)
        row["trip mm"] = round_trip(landmarks(bench, pair), folder, bench.given.threads)
    except RuntimeError as error:
        return row | {"failed": str(error).splitlines()[-1] or str(error)}
    scores = bench.score(pair, bench.root, folder)
    figure = figure_of(scores)
    row |= {"before": float(scores[f"{figure} before"]), "after": float(scores[figure])}
    row |= {"folded %": scores["folded %"], **usage_of(folder)}
    row |= consistency(bench.root / pair["fixed"], bench.root / pair["moving"], folder)
    alignment = json.loads((folder / "record.json").read_text(encoding="utf-8")).get("alignment") or {}
    return row | {"aligned": alignment.get("transform", "-"), "doubts": alignment.get("doubts", [])}


def landmarks(bench: Bench, pair: Mapping[str, Any]) -> np.ndarray:
    """Fixed landmarks (N, D) of a pair in mm; where it has none, the centres of its labels."""
    if "fixed_landmarks" in pair:
        return read_points(*(bench.root / path for path in pair["fixed_landmarks"]))
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.ReadImage(str(bench.root / pair["fixed_labels"]), sitk.sitkUInt16))
    return np.array([shapes.GetCentroid(label) for label in shapes.GetLabels()])


if __name__ == "__main__":
    main()
