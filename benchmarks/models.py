"""Registers real pairs with different feature models and sets them side by side.

    python models.py [PAIRS.toml] [RESULTS] [--threads N] [--only NAME ...]

The liver pairs with MIND, M730 and both (landmark error in mm), and the brain pair with MIND, M730, MeshNet and
combinations (Dice). Every run is one process ``semreg register`` with its defaults and the named models. Leaves with 1
if M730 is worse than MIND by more than 10 % on the liver.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import tools
from measure import measure
from pairs import load_scorer, tomllib

import report

WORST_CHANGE = 10.0
"""Percent by which M730's mean landmark error may exceed MIND's."""
MESHNET = ("axes=LIA", "spacing_mm=1", "normalisation.kind=min-max")


def main() -> None:
    """Register, score, print."""
    given = arguments()
    if not given.pairs.exists() or not given.scorer.exists():
        print(f"skipped: {given.pairs} and {given.scorer} are needed, and they are not both there")
        return
    root, score = given.pairs.parent, load_scorer(given.scorer)
    pairs = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    livers = [pair for pair in pairs if pair["name"].startswith("liver")]
    brains = [pair for pair in pairs if pair["name"] == "oasis"]
    models = combinations(root / "models")
    text, good = "", True
    for group, figure, names in (
        (livers, "TRE", ["MIND", "M730", "MIND + M730"]),
        (brains, "Dice", list(models)),
    ):
        wanted = [name for name in names if not given.only or name in given.only]
        rows = {name: [one(given, pair, models[name], name, score) for pair in group] for name in wanted}
        text += table(rows, group, figure) + "\n"
        if figure == "TRE" and {"MIND", "M730"} <= set(rows):
            mind, m730 = (fmean(row["TRE"] for row in rows[name]) for name in ("MIND", "M730"))
            change = 100 * (m730 / mind - 1)
            good = change <= WORST_CHANGE
            text += f"M730 against MIND on the liver: {change:+.1f} % (bar: +{WORST_CHANGE:g} %), "
            text += f"{report.holds(good)}.\n\n"
    print(text)
    if given.report:
        facts = report.machine(given.threads) | {"semreg": report.versions_line(tools.semreg_versions())}
        given.report.write_text(f"# Feature models\n\n{report.bullets(facts)}\n{text}", encoding="utf-8")
    sys.exit(0 if good else 1)


def arguments() -> argparse.Namespace:
    """What the command was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "models", help="folder for the results")
    add("--scorer", type=Path, default=tools.SHARED / "bench" / "score.py", help="the file that scores")
    add("--only", nargs="+", default=[], metavar="NAME", help="these rows alone")
    add("--threads", type=int, default=1)
    add("--report", type=Path, help="write the tables to this Markdown file too")
    return parser.parse_args()


def combinations(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Entries of ``models`` in the settings by the name of the row."""
    mind: dict[str, Any] = {"model": "mind"}
    m730 = {"model": str(folder / "M730_1_Layers.pt")}
    mesh = {"model": str(folder / "brainchop_model30chan18cls.pt"), "spec": list(MESHNET)}
    first, classes = mesh | {"layers": [0]}, mesh | {"layers": [-1]}
    return {
        "MIND": [mind],
        "M730": [m730],
        "MeshNet, first layer": [first],
        "MeshNet, classes": [classes],
        "MIND + M730": [mind, m730],
        "MIND + MeshNet, classes": [mind, classes],
        "MIND + M730 + MeshNet, classes": [mind, m730, classes],
    }


def settings(models: list[dict[str, Any]], path: Path) -> Path:
    """A file of settings with these models; JSON's texts, numbers and lists are TOML's."""
    tables = ["\n".join(["[[models]]", *[f"{k} = {json.dumps(v)}" for k, v in model.items()]]) for model in models]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    return path


def one(
    given: argparse.Namespace, pair: dict[str, Any], models: list[dict[str, Any]], name: str, score: Any
) -> dict[str, float]:
    """One pair registered with one choice of models: its scores and what it took."""
    root = given.pairs.parent
    folder = given.results / name.replace(" ", "").replace(",", "-").replace("+", "-") / pair["name"]
    config = settings(models, folder.parent / "settings.toml")
    command = tools.semreg_command(root / pair["fixed"], root / pair["moving"], folder, given.threads)
    usage = measure([*command, "--config", config], threads=given.threads, log=folder.parent / f"{pair['name']}.log")
    scores = dict(score(pair, root, folder))
    print(f"{name}, {pair['name']}: done", flush=True)
    return scores | {"CPU s": usage.cpu_seconds, "peak GB": usage.peak_bytes / 1e9}


def table(rows: dict[str, list[dict[str, float]]], group: list[dict[str, Any]], figure: str) -> str:
    """One choice of models a line, one pair a column."""
    header = [f"models ({figure})", *[pair["name"] for pair in group], "mean", "folded %", "CPU s", "peak GB"]
    cells = []
    for name, scores in rows.items():
        values = [row[figure] for row in scores]
        most = [max(row[what] for row in scores) for what in ("folded %", "CPU s", "peak GB")]
        cells.append(
            [name, *[report.number(v) for v in values], report.number(fmean(values)), report.number(most[0], 4),
             report.number(most[1], 1), report.number(most[2], 2)]
        )  # fmt: skip
    return report.markdown_table(header, cells)


if __name__ == "__main__":
    main()
