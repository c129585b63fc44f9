"""Registers the built-in phantom pair, writes all files and says how far landmarks are off, in mm.

Does nothing that a user could not do with the public names. Knows nothing of the terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from semreg.evaluation import evaluate, stage_evaluation
from semreg.events import OnStep
from semreg.files import OutputFolder, write_field, write_image, write_transform
from semreg.gates import collect, judge
from semreg.phantom import PhantomPair, make_pair
from semreg.record import stable_json, versions
from semreg.registration import register
from semreg.reports import Case, write_report

FIXED_TYPE, MOVING_TYPE = "int16", "uint16"


def run(out: Path, *, size: int = 120, on_step: OnStep | None = None) -> list[str]:
    """Register a phantom of about ``size`` voxels an axis, write everything to ``out`` and return what to print.

    Raises OutputError if ``out`` cannot be written; then nothing is left there.
    """
    pair = make_pair(size=size)
    with OutputFolder(out) as folder:
        write_pair(pair, folder)
        result = register(pair.fixed, pair.moving, on_step=on_step)
        points = (pair.fixed_points.numpy(), pair.moving_points.numpy())
        evaluation = evaluate(result, fixed=pair.fixed, moving=pair.moving, landmarks=points)
        measured = evaluation.to_dict()
        evidence = collect(pair.fixed, pair.moving, result.field)
        known = {"evaluation": measured, "uncertainty": result.record["uncertainty"], "record": result.record}
        verdict = judge(evidence, **known).to_dict()
        write_image(result.warped, folder.stage("warped.nii.gz"), MOVING_TYPE)
        write_field(result.field, folder.stage("field.nii.gz"))
        write_transform(result.field, folder.stage("transform.h5"))
        record = {**result.record, "landmarks": landmark_summary(measured), "verdict": verdict, "versions": versions()}
        folder.stage("record.json").write_text(stable_json(record), encoding="utf-8")
        stage_evaluation(evaluation, folder, verdict=verdict)
        case = Case(
            fixed=pair.fixed, moving=pair.moving, field=result.field, warped=result.warped,
            uncertainty=result.uncertainty, evaluation=measured, verdict=verdict, record=record,
            names={"fixed": "fixed.nii.gz", "moving": "moving.nii.gz"}, title="The built-in phantoms",
        )  # fmt: skip
        write_report(folder.stage("report.html"), case)
    jacobian = record["jacobian"]
    before, after = (
        f"mean {each['mean_mm']:.2f} mm, 95th percentile {each['p95_mm']:.2f} mm"
        for each in record["landmarks"].values()
    )
    return [
        f"{len(pair.fixed_points)} landmarks on a CT-like and an MR-like image with a known deformation",
        f"landmark error before: {before}",
        f"landmark error after:  {after}",
        f"smallest Jacobian: {jacobian['minimum']:.3f}",
        f"folded voxels: {100 * jacobian['folded_share']:.3g} %",
        f"verdict: {verdict['level']}, see {out / 'report.html'}",
        "files: " + ", ".join(str(path) for path in folder.files),
    ]


def landmark_summary(measured: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Mean and 95th percentile of the landmark error before and after, in mm."""
    return {
        when: {f"{name}_mm": measured["landmarks"][when][name] for name in ("mean", "p95")}
        for when in ("before", "after")
    }


def write_pair(pair: PhantomPair, folder: OutputFolder) -> None:
    """Write the images as a scanner stores them, and the landmarks."""
    write_image(pair.fixed, folder.stage("fixed.nii.gz"), FIXED_TYPE)
    write_image(pair.moving, folder.stage("moving.nii.gz"), MOVING_TYPE)
    _write_points(pair.fixed_points, folder.stage("fixed_points.csv"))
    _write_points(pair.moving_points, folder.stage("moving_points.csv"))


def _write_points(points: Tensor, path: Path) -> None:
    """Points (N, D) in mm, LPS, one a line under a header."""
    names = ",".join("xyz"[: points.shape[1]])
    np.savetxt(path, points.numpy(), fmt="%.4f", delimiter=",", header=names, comments="")
