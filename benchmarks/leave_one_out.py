"""What a default would have been without each group of real pairs, and what that group would then have got.

    python leave_one_out.py --try NAME=VALUE [--try NAME=VALUE ...] [PAIRS.toml] [RESULTS]

Every pair is registered with the defaults and with each setting that is tried; what is in RESULTS already is not run
again. The loss of a setting on a group is the mean over its pairs of the logarithm of landmark error, or of 1 − Dice,
relative to the defaults. For each group the setting of the least mean loss on all other groups is named, and the figure
that it gets there. The best of a column was chosen on what it is judged by; these figures were not.
"""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import tools
from pairs import figure_of, load_scorer, run_pair, usage_of

import report

DEFAULTS = "the defaults"


def main() -> None:
    """Register, score, choose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("results", type=Path, nargs="?", default=tools.OUT / "leave_one_out", help="folder for the results")
    add("--scorer", type=Path, default=tools.SHARED / "bench" / "score.py", help="the file that scores")
    add(
        "--try",
        dest="tried",
        action="append",
        required=True,
        metavar="NAME=VALUE",
        help="a setting, or some with commas",
    )
    add("--threads", type=int, default=1)
    given = parser.parse_args()
    if not given.pairs.exists() or not given.scorer.exists():
        print(f"skipped: {given.pairs} and {given.scorer} are needed, and they are not both there")
        return
    score, root = load_scorer(given.scorer), given.pairs.parent
    pairs = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    rows = {
        setting: {pair["name"]: scored(pair, root, given, setting, score) for pair in pairs}
        for setting in (DEFAULTS, *given.tried)
    }
    facts = report.machine(given.threads) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = f"# Leaving one group out\n\n{report.bullets(facts)}\n{tables(rows)}"
    print(text)
    (tools.RESULTS / "leave_one_out.md").write_text(text, encoding="utf-8")


def scored(pair: Mapping[str, Any], root: Path, given: argparse.Namespace, setting: str, score: Any) -> dict[str, Any]:
    """The scores of a pair with a setting, and what it took: from a run before, or from a new one."""
    folder = given.results / setting.replace(" ", "_") / pair["name"]
    kept = folder / "scores.json"
    if not kept.exists():
        settings = [] if setting == DEFAULTS else setting.split(",")
        images = root / pair["fixed"], root / pair["moving"]
        run_pair(tools.semreg_command(*images, folder, given.threads, settings), folder, given.threads)
        kept.write_text(json.dumps(score(pair, root, folder) | usage_of(folder)) + "\n", encoding="utf-8")
        print(f"{setting}: {pair['name']}: done", flush=True)
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def tables(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The figures of each group with each setting, and what is chosen without it."""
    groups: dict[str, list[str]] = {}
    for name in rows[DEFAULTS]:
        groups.setdefault(name.partition("_")[0], []).append(name)
    losses = {s: {g: loss(rows[s], rows[DEFAULTS], names) for g, names in groups.items()} for s in rows}
    figures, choices = [], []
    for group, names in groups.items():
        figure = figure_of(rows[DEFAULTS][names[0]])
        means = {s: fmean(float(rows[s][name][figure]) for name in names) for s in rows}
        figures.append([group, figure, *(report.number(means[s]) for s in rows)])
        without = {s: fmean(losses[s][other] for other in groups if other != group) for s in rows}
        best = min(without, key=lambda s: without[s])
        choices.append([group, best, report.number(means[best]), report.number(means[DEFAULTS])])
    overall = ["loss against the defaults", "", *(report.number(fmean(losses[s].values()), 4) for s in rows)]
    seconds = [
        "CPU seconds, mean",
        "",
        *(report.number(fmean(float(r["CPU s"]) for r in rows[s].values()), 1) for s in rows),
    ]
    folded = [
        "folded %, largest",
        "",
        *(report.number(max(float(r["folded %"]) for r in rows[s].values()), 4) for s in rows),
    ]
    return "\n".join(
        [
            report.markdown_table(["mean of group", "figure", *rows], [*figures, overall, seconds, folded]),
            report.markdown_table(
                ["left out", "chosen on all others", "it would have got", "the defaults get"], choices
            ),
        ]
    )


def loss(rows: Mapping[str, Mapping[str, Any]], usual: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> float:
    """Mean logarithm of the errors of some pairs relative to those with the defaults."""
    return fmean(math.log(error_of(rows[name]) / error_of(usual[name])) for name in names)


def error_of(row: Mapping[str, Any]) -> float:
    """Landmark error, or 1 − Dice."""
    figure = figure_of(row)
    value = float(row[figure])
    return 1 - value if figure == "Dice" else value


if __name__ == "__main__":
    main()
