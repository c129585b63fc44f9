"""Writes the page of a case: one HTML file that needs nothing else. No arithmetic on images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import semreg
from semreg.io.atomic_output import atomic_file
from semreg.io.records import stable_json
from semreg.report import drawings, tables
from semreg.report.case import Case
from semreg.report.colours import BLUE, FOLDED, LARGER, ORANGE, SMALLER, viridis
from semreg.report.encode import sheets, sheets_within
from semreg.report.pictures import rows_of, size_of
from semreg.report.planes import planes_of
from semreg.report.stacks import Map, Stacks, make_stacks
from semreg.report.templating import environment

GREY_BYTES = 9_500_000
"""What the three grey stacks may take on the page, as text."""
LEVELS = ("PASS", "LOOK", "FAIL")
HEADLINES = {
    "PASS": "No check found a reason to doubt this registration.",
    "LOOK": "Something needs a look before this result is used.",
    "FAIL": "This result should not be used as it is.",
    "NONE": "Nothing was judged: look at the pictures.",
}


def write_report(case: Case, path: str | Path) -> None:
    """Write the page of a case to ``path``, a self-contained HTML file below 15 MB.

    Raises OutputError if it cannot be written; then nothing is left there.
    """
    with atomic_file(path) as partial:
        partial.write_text(render(case), encoding="utf-8")


def render(case: Case) -> str:
    """The page as text."""
    stacks = make_stacks(case)
    planes = planes_of(stacks.grid)
    sizes = [size_of(stacks, plane) for plane in planes]
    page = environment().get_template("report.html.j2")
    return page.render(
        case=case,
        version=semreg.__version__,
        verdict=verdict_of(case.verdict),
        keys=tables.key_figures(case),
        panels=drawings.box_panels(case),
        boxes={"fixed": drawings.grid_sentence(case.fixed.grid), "moving": drawings.grid_sentence(case.moving.grid)},
        rows=rows_of(stacks, planes),
        planes=planes,
        sizes=[f"{width} / {height}" for height, width in sizes],
        tallest=min(115, max(100 * height // width for height, width in sizes)),
        windows=stacks.windows,
        has_uncertainty=stacks.uncertainty is not None,
        has_labels=bool(stacks.labels),
        curves=drawings.curves(case.record),
        curve_size=(drawings.CURVE_WIDTH, drawings.CURVE_HEIGHT),
        landmarks=tables.landmark_rows(case.evaluation),
        landmark_summary=tables.at(case.evaluation, "landmarks"),
        labels=tables.label_rows(case.evaluation),
        label_tolerance=tables.at(case.evaluation, "labels", "tolerance_mm"),
        measures=tables.MEASURES,
        number=tables.number,
        measured=stable_json(measured) if (measured := _origin(case.evaluation)) else "",
        remarks=[str(line) for line in tables.at(case.evaluation, "notes") or []],
        decisions=[str(tables.at(each, "sentence")) for each in tables.at(case.record, "plan", "reasons") or []],
        changed=tables.changed_settings(case.record),
        settings=stable_json(settings) if (settings := tables.at(case.record, "settings")) else "",
        record=stable_json(case.record) if case.record else "",
        data=viewer_data(stacks, planes),
    )


def _rounded(value: Any) -> Any:
    """What a person need not tell from nothing is shown as nothing."""
    return 0.0 if isinstance(value, float) and abs(value) < 1e-4 else value


def _origin(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an evaluation says of where it came from: files with their checksums, command, versions."""
    return {key: (evaluation or {})[key] for key in ("command", "inputs", "versions") if (evaluation or {}).get(key)}


def verdict_of(verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdict as the page shows it: the worst gates first; NONE where nothing was judged."""
    level = str(tables.at(verdict, "level"))
    level = level if level in LEVELS else "NONE"
    gates = [gate for gate in tables.at(verdict, "gates") or [] if isinstance(gate, Mapping)]
    rank = {"FAIL": 0, "LOOK": 1, "PASS": 2}
    shown = [
        {
            "title": str(gate.get("title") or gate.get("name") or ""),
            "level": gate.get("level") if gate.get("level") in LEVELS else "NONE",
            "value": tables.number(_rounded(gate.get("value"))),
            "unit": str(gate.get("unit") or ""),
            "look": tables.number(gate.get("look")),
            "fail": tables.number(gate.get("fail")),
            "beyond": "above" if gate.get("better") == "lower" else "below",
            "sentence": str(gate.get("sentence") or ""),
        }
        for gate in gates
    ]
    shown.sort(key=lambda gate: rank.get(str(gate["level"]), 3))
    levels = [gate["level"] for gate in shown]
    judged = len(levels) - levels.count("NONE")
    counted = f"{levels.count('PASS')} of {judged} checks passed"
    counted += f"; {levels.count('NONE')} had nothing to measure." if "NONE" in levels else "."
    reasons = [gate for gate in shown if gate["level"] in ("FAIL", "LOOK")]
    return {"level": level, "headline": HEADLINES[level], "gates": shown, "reasons": reasons, "counted": counted}


def viewer_data(stacks: Stacks, planes: Any) -> dict[str, Any]:
    """What the viewer reads: stacks as sheets, planes, colours."""
    grey = sheets_within({"fixed": stacks.fixed, "before": stacks.before, "after": stacks.after}, GREY_BYTES)
    maps = {"jacobian": stacks.jacobian, "uncertainty": stacks.uncertainty}
    return {
        "shape": list(stacks.shape),
        "full": list(stacks.full),
        "spacing": list(stacks.spacing),
        "toPoint": stacks.grid.index_to_point().tolist(),
        "dimension": stacks.grid.dimension,
        "planes": [
            {
                "name": plane.name, "across": plane.across, "rows": plane.rows, "columns": plane.columns,
                "upwards": plane.upwards, "letters": list(plane.letters), "along": plane.along,
            }
            for plane in planes
        ],
        "stacks": {name: each.to_dict() for name, each in grey.items()},
        "maps": {name: _map(each) for name, each in maps.items() if each is not None},
        "labels": {
            name: {"shape": list(each.shape), **sheets(each, quality=None).to_dict()}
            for name, each in stacks.labels.items()
        },
        "vectors": _vectors(stacks.vectors),
        "colours": {
            "viridis": viridis().ravel().tolist(), "orange": ORANGE, "blue": BLUE, "smaller": SMALLER, "larger": LARGER,
            "folded": FOLDED,
        },
    }  # fmt: skip


def _map(chosen: Map) -> dict[str, Any]:
    return {
        "shape": list(chosen.stack.shape), "low": chosen.low, "high": chosen.high, "unit": chosen.unit,
        **sheets(chosen.stack, quality=None).to_dict(),
    }  # fmt: skip


def _vectors(vectors: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Displacements with 16 bits a component: the upper bytes of all three, then the lower ones, one stack."""
    reach = float(np.abs(vectors).max()) or 1.0
    steps = np.rint(vectors / reach * 32767).astype(np.int32) + 32768
    halves = np.concatenate([steps >> 8, steps & 255]).astype(np.uint8)
    length = np.sqrt((vectors.astype(np.float64) ** 2).sum(0))
    return {
        "shape": list(vectors.shape[1:]), "reach": reach, "largest": float(length.max()),
        "high": float(np.percentile(length, 99.5)) or 1.0,
        **sheets(halves.reshape(-1, *vectors.shape[2:]), quality=None).to_dict(),
    }  # fmt: skip
