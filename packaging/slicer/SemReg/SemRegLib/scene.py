"""Nodes of Slicer's scene as the files of a job, and the files of a result as nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer
import vtk

from SemRegLib.job import FORMAT, Job
from SemRegLib.points import Point, check_pairs, write_markups
from SemRegLib.programs import OPEN
from SemRegLib.result import Result


@dataclass(frozen=True)
class Selection:
    """The nodes of a registration, and its settings."""

    fixed: Any
    moving: Any
    fixed_mask: Any = None
    moving_mask: Any = None
    fixed_points: Any = None
    moving_points: Any = None
    preset: str = OPEN
    align: str = OPEN
    model: str = ""
    models: str = ""
    fast: bool = False


@dataclass(frozen=True)
class Loaded:
    """The nodes of a result."""

    transform: Any
    uncertainty: Any
    table: Any
    result: Result


def write_inputs(selection: Selection, folder: Path) -> Job:
    """The files that semreg reads, in ``folder``, and where its results go (ValueError)."""
    if selection.fixed is selection.moving:
        raise ValueError("expected two volumes, got the same one twice: choose another one")
    nodes = {
        "fixed": selection.fixed,
        "moving": selection.moving,
        "fixed_mask": selection.fixed_mask,
        "moving_mask": selection.moving_mask,
    }
    paths = {name: _write_volume(node, folder / f"{name}.{FORMAT}") for name, node in nodes.items() if node is not None}
    if (selection.fixed_points is None) != (selection.moving_points is None):
        raise ValueError("expected landmarks of both images, got those of one: choose both lists, or none")
    if selection.fixed_points is not None:
        lists = {"fixed": points_of(selection.fixed_points), "moving": points_of(selection.moving_points)}
        check_pairs(lists["fixed"], lists["moving"])
        for name, points in lists.items():
            paths[f"{name}_landmarks"] = folder / f"{name}.mrk.json"
            write_markups(points, paths[f"{name}_landmarks"])
    return Job(
        **paths,
        folder=folder / "result",
        preset=selection.preset,
        align=selection.align,
        model=selection.model,
        models=Path(selection.models) if selection.models else None,
        fast=selection.fast,
    )


def _write_volume(node: Any, path: Path) -> Path:
    """Write a volume; refuse one that lies under a transform, as the result would be for another place."""
    over = node.GetParentTransformNode()
    if over is not None:
        raise ValueError(
            f"expected volumes under no transform, got {node.GetName()} under {over.GetName()}: "
            "harden the transform, or take the volume from under it"
        )
    if not slicer.util.exportNode(node, str(path), {}):
        raise ValueError(f"expected to write {node.GetName()} as {path}, Slicer could not: look into its error log")
    return path


def points_of(node: Any) -> list[Point]:
    """The control points that are placed, in the scene's RAS, under whichever transform the markups lie."""
    found = []
    for number in range(node.GetNumberOfControlPoints()):
        if node.GetNthControlPointPositionStatus(number) == slicer.vtkMRMLMarkupsNode.PositionDefined:
            ras = [0.0, 0.0, 0.0]
            node.GetNthControlPointPositionWorld(number, ras)
            found.append(Point(node.GetNthControlPointLabel(number), (ras[0], ras[1], ras[2])))
    return found


def load_result(result: Result, selection: Selection) -> Loaded:
    """The nodes of a result, and the moving volume under its transform."""
    name = f"{selection.moving.GetName()} to {selection.fixed.GetName()}"
    transform = _forget_file(slicer.util.loadTransform(str(result.transform)))
    transform.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    uncertainty = None
    if result.uncertainty is not None:
        title = slicer.mrmlScene.GenerateUniqueName(f"{name}, uncertainty in mm")
        uncertainty = _forget_file(slicer.util.loadVolume(str(result.uncertainty), {"name": title, "show": False}))
    table = _table_of(result, name)
    selection.moving.SetAndObserveTransformNodeID(transform.GetID())
    return Loaded(transform, uncertainty, table, result)


def _forget_file(node: Any | None) -> Any:
    """The node without the temporary file it came from: else Slicer would hold it for saved when that is gone."""
    if node is None:
        raise ValueError("expected to load the result, Slicer could not: look into its error log")
    if node.GetStorageNode() is not None:
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())
    return node


def _table_of(result: Result, name: str) -> Any:
    """The checks as a table of Slicer: level, title, sentence."""
    title = slicer.mrmlScene.GenerateUniqueName(f"{name}, checks")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
    for heading in ("level", "title", "sentence"):
        column = vtk.vtkStringArray()
        column.SetName(heading)
        for check in result.checks:
            column.InsertNextValue(getattr(check, heading))
        table.AddColumn(column)
    return table
