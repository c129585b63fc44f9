"""The page that sets semreg beside its peers: tables, who wins, and under what conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peer_plots
import tools
from peer_figures import ACCURACY, BEFORE, CPU, FOLDED, OWN, P95, PEAK, Board, best, board

import report

TITLES = {BEFORE: "before", OWN: "semreg"} | {name: peer.title for name, peer in tools.PEERS.items()}
INTRODUCTION = """\
Every tool with one configuration for all pairs, the one its package or its example comes with; nothing was tuned here.
These are no equal terms: **semreg's defaults were set with most of these pairs in view**, the peers' were not, so its
figures are in-sample and theirs are not. In the hands of somebody who knows a peer it may do better than here. ANTs
draws samples at random without a fixed seed: its figures change from run to run.

All tools get the same files and write a transform or a displacement field; one scorer, SimpleITK alone, reads what
they wrote. `before` is the identity. The best of a row is bold, whoever it is; what differs by less than 0.0005 ties.
Printed by `benchmarks/run --report` ([README](../README.md)); every single run is in [{json}]({json}).
"""
COSTS = """\
A run is a process, from its start to its written files; Python, imports and reading are included in seconds and in
memory. The tools do not write the same: semreg its field, its transform, the warped image and the page of its report,
ANTs and itk-impact also compute the way back or the warped image, convexAdam the field alone. CPU seconds are of all
threads, user and system. {load}
"""


def tables(found: Mapping[str, Any]) -> str:
    """The tables alone, as Markdown."""
    made = made_board(found)
    parts = [
        accuracy_part(made), wins_part(made), folded_part(made), costs_part(found, made), failures_part(found)
    ]  # fmt: skip
    return "\n".join(parts)


def write(found: Mapping[str, Any], path: Path) -> None:
    """The page, its plots and the raw runs beside it, named after it."""
    made = made_board(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = path.with_suffix(".json")
    raw.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    plots = [
        peer_plots.draw(made, CPU, path.with_name(f"{path.stem}-cpu.svg"), TITLES),
        peer_plots.draw(made, PEAK, path.with_name(f"{path.stem}-memory.svg"), TITLES),
    ]
    pictures = [
        f"![Accuracy of each tool over its {what}, one panel a group of pairs]({plot.name})\n"
        for what, plot in zip(("CPU seconds", "peak memory"), plots, strict=True)
    ]
    head = f"# semreg beside its peers\n\n{INTRODUCTION.format(json=raw.name)}"
    parts = [head, report.bullets(found["machine"] | {"runs": runs_told(found)}), *pictures, tables(found)]
    path.write_text("\n".join([*parts, configurations_part(found, made)]), encoding="utf-8")


def made_board(found: Mapping[str, Any]) -> Board:
    """The figures, tools in the order of the page."""
    return board(found["runs"], list(TITLES))


def runs_told(found: Mapping[str, Any]) -> str:
    """How many runs the medians are of."""
    counts: dict[tuple[str, str], int] = {}
    for run in found["runs"]:
        if run["tool"] != BEFORE:
            counts[run["pair"], run["tool"]] = counts.get((run["pair"], run["tool"]), 0) + 1
    fewest, most = min(counts.values(), default=0), max(counts.values(), default=0)
    return "one of each tool on each pair" if most == 1 else f"medians of {fewest} to {most} of each tool on each pair"


def row_of(made: Board, pairs: Sequence[str], figure: str, digits: int) -> list[str]:
    """Cells of one line: the means over ``pairs``, the best one bold, the reason where there is none."""
    accuracy = figure in {ACCURACY, P95}
    larger = figure == ACCURACY and made.units[pairs[0]] == "Dice"
    names = [name for name in made.tools if accuracy or name != BEFORE]
    values = {name: made.mean(pairs, name, figure) for name in names}
    winners = best({name: value for name, value in values.items() if name != BEFORE}, larger=larger)
    cells = []
    for name, value in values.items():
        states = [made.get(pair, name).status for pair in pairs]
        if value is None:
            cells.append(next((state for state in states if state != "ok"), "-"))
        else:
            text = report.number(value, digits)
            cells.append(f"**{text}**" if name in winners else text)
    return cells


def accuracy_part(made: Board) -> str:
    """Accuracy by pair and by group, and the tail of the landmark errors."""
    header = [TITLES[name] for name in made.tools]
    by_pair = [[pair, made.units[pair], *row_of(made, [pair], ACCURACY, 3)] for pair in made.pairs]
    by_group, tails = [], []
    for group, pairs in made.groups().items():
        unit = made.units[pairs[0]]
        cells = row_of(made, pairs, ACCURACY, 3)
        by_group.append([f"{len(pairs)} × {group}", unit, *cells])
        if unit != "Dice":
            tails.append([f"{len(pairs)} × {group}", unit, *row_of(made, pairs, P95, 3)])
    text = "## Accuracy\n\nMean landmark error, less is better, or mean Dice over all labels, more is better.\n\n"
    text += report.markdown_table(["mean of group", "figure", *header], by_group)
    text += f"\n{report.markdown_table(['pair', 'figure', *header], by_pair)}"
    if tails:
        table = report.markdown_table(["mean of group", "figure", *header], tails)
        text += f"\n95th percentile of the landmark errors:\n\n{table}"
    return text


def wins_part(made: Board) -> str:
    """Where another tool is better than semreg, from the figures."""
    lines = []
    ways = ((ACCURACY, 3), (FOLDED, 4), (CPU, 1), (PEAK, 2))
    for figure, digits in ways:
        for pair in made.pairs:
            larger = figure == ACCURACY and made.units[pair] == "Dice"
            own = made.get(pair, OWN).figures.get(figure)
            values = {name: made.get(pair, name).figures.get(figure) for name in made.tools if name != BEFORE}
            winners = best(values, larger=larger)
            if not winners or OWN in winners:
                continue
            told = made.units[pair] if figure == ACCURACY else figure
            named = ", ".join(
                f"{TITLES[name]} {report.number(values[name], digits)}" for name in made.tools if name in winners
            )
            beside = made.get(pair, OWN).status if own is None else report.number(own, digits)
            lines.append(f"* {pair}, {told}: {named}; semreg {beside}\n")
    text = (
        "## Where a peer wins\n\nPairs on which another tool is the best one and semreg does not share its place.\n\n"
    )
    return text + ("".join(lines) or "None.\n")


def folded_part(made: Board) -> str:
    """Folded voxels."""
    names = [name for name in made.tools if name != BEFORE]
    rows = [[pair, *row_of(made, [pair], FOLDED, 4)] for pair in made.pairs]
    text = (
        "## Folded voxels\n\nPercent of the voxels of the fixed image whose Jacobian determinant is not positive.\n\n"
    )
    return text + report.markdown_table(["pair", *(TITLES[name] for name in names)], rows)


def costs_part(found: Mapping[str, Any], made: Board) -> str:
    """Seconds and memory."""
    names = [name for name in made.tools if name != BEFORE]
    each = {name: [run["load before"] for run in found["runs"] if run["tool"] == name and "load before" in run]
            for name in names}  # fmt: skip
    loads = ", ".join(f"{TITLES[name]} {np.median(load):.1f} ({min(load):.1f} to {max(load):.1f})"
                      for name, load in each.items() if load)  # fmt: skip
    load = (
        f"The machine's load at the start of the runs, median (least to most): {loads}. Other work\n"
        "raises CPU seconds, by how much is not known, and makes seconds on the clock worthless; the JSON has both."
    )
    text = f"## Cost\n\n{COSTS.format(load=load)}"
    for figure, digits, title in ((CPU, 1, "CPU seconds"), (PEAK, 2, "Peak memory, GB")):
        rows = [[pair, *row_of(made, [pair], figure, digits)] for pair in made.pairs]
        text += f"\n{title}:\n\n{report.markdown_table(['pair', *(TITLES[name] for name in names)], rows)}"
    return text


def failures_part(found: Mapping[str, Any]) -> str:
    """What went wrong, in the words of the tools."""
    lines = [
        f"* {run['pair']}, {TITLES[run['tool']]}: {run['status']}: {run.get('message', '')}\n"
        for run in found["runs"] if run["status"] not in {"ok", "not supported"}
    ]  # fmt: skip
    lines += [
        f"* {TITLES[name]}: {told['absent']}\n" for name, told in found["tools"].items() if "absent" in told
    ]  # fmt: skip
    return "## Failures\n\n" + ("".join(lines) or "None.\n")


def configurations_part(found: Mapping[str, Any], made: Board) -> str:
    """What was run, tool by tool."""
    lines = [
        f"* **{TITLES[name]}**: {told['configuration']}. {report.versions_line(told['versions'])}.\n"
        for name in made.tools if (told := found["tools"].get(name))
    ]  # fmt: skip
    return "## Configurations\n\n" + "".join(lines)
