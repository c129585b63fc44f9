"""What the metric in C++ (``native/src/metric.h``) calls: buffers in, a value and a derivative out.

Loads no ITK: the C++ that calls may be that of the package itk, or a program with ITK of its own.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypeAlias
from weakref import ref

import numpy as np
import numpy.typing as npt
import torch

from semreg.core.fields import Volume
from semreg.core.geometry import Grid
from semreg.errors import DivergedError
from semreg.io.bridge import grid_of_header

Points: TypeAlias = npt.NDArray[np.float64]
MapPoints: TypeAlias = Callable[[Any, bytes], bytearray]


class Evaluated(Protocol):
    """A metric as it is asked; ``semreg.itk.api.metricv4.PythonMetricv4`` says what each part is."""

    fixed: Volume
    moving: Volume
    virtual: Grid
    moving_points: Callable[[Points], Points]

    def initialize(self) -> None:
        """Once a level, after the images are set."""

    def place(self, fixed_points: Points) -> None:
        """After it, with all sample points."""

    def evaluate_rows(
        self, rows: npt.NDArray[np.int64], moving_points: Points, *, derivative: bool
    ) -> tuple[float, Points | None]:
        """The value and its derivative."""
        ...


class Target:
    """What C++ calls. Answers with a number or None, with a text where something went wrong; raises nothing."""

    def __init__(self, python: Evaluated, map_points: MapPoints | None = None, owner: ref[Any] | None = None) -> None:
        """``map_points`` of C++ takes further points to the moving image; ``owner`` gets what was raised as ``error``.

        The owner is known by a weak reference: an error refers to the frames of its callers, which hold the owner.
        """
        self.python = python
        self.map_points = map_points
        self.owner = owner
        self.asked: set[int] = set()
        """The threads in which an evaluation is going on."""

    def initialize(self, fixed: Any, moving: Any, virtual: Any, points: bytearray) -> Any:
        """Images as (voxels, geometry), the geometry of the virtual domain, and the sample points."""

        def run() -> None:
            python = self.python
            python.fixed, python.moving, python.virtual = _volume(fixed), _volume(moving), _grid(virtual)
            python.initialize()
            python.place(_points(points, python.fixed.grid.dimension))

        return self._guarded(run)

    def evaluate(self, handle: Any, rows: bytearray, points: bytearray, slope: bytearray | None) -> Any:
        """The value at these points; fills ``slope`` with its derivative."""

        def run() -> float:
            python = self.python
            where = _points(points, python.fixed.grid.dimension)
            thread = threading.get_ident()
            if thread in self.asked:
                raise RuntimeError(
                    f"expected {type(python).__name__} to be evaluated by ITK alone, got a call of GetValue or "
                    "GetDerivative from inside of its evaluation: leave it out"
                )
            self.asked.add(thread)
            if self.map_points is not None:
                python.moving_points = partial(_mapped, self.map_points, handle)
            try:
                found = python.evaluate_rows(np.frombuffer(rows, dtype=np.int64), where, derivative=slope is not None)
            finally:
                self.asked.discard(thread)
            value, derivative = _checked(found, where, needed=slope is not None, name=type(python).__name__)
            if slope is not None:
                _points(slope, where.shape[1])[:] = derivative
            return value

        return self._guarded(run)

    def _guarded(self, run: Callable[[], Any]) -> Any:
        owner = None if self.owner is None else self.owner()
        if owner is not None:
            owner.error = None
        try:
            return run()
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt too: it must cross C++ in one piece
            if owner is not None:
                owner.error = error
            kind = type(error)
            title = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            lines = traceback.format_exception(kind, error, error.__traceback__)
            return f"{title}: {error}\n{''.join(lines)}"


def _mapped(map_points: MapPoints, handle: Any, points: Points) -> Points:
    given = np.ascontiguousarray(points, dtype=np.float64)
    return np.frombuffer(map_points(handle, given.tobytes())).reshape(given.shape)


def _checked(found: Any, where: Points, *, needed: bool, name: str) -> tuple[float, Points]:
    """Value and derivative of their shape and finite."""
    value, derivative = found
    value = float(value)
    if not np.isfinite(value):
        raise DivergedError(f"expected a finite value from {name}, got {value}: check the images")
    slope = np.zeros_like(where) if derivative is None else np.asarray(derivative, dtype=np.float64)
    if needed and derivative is None:
        raise TypeError(f"expected {name} to give a derivative for this optimiser, got None: return one, or use Powell")
    if slope.shape != where.shape:
        raise TypeError(f"expected a derivative of shape {where.shape} from {name}, got {slope.shape}")
    if not np.isfinite(slope).all():
        raise DivergedError(f"expected a finite derivative from {name}, got NaN or infinity: check the images")
    return value, slope


def _grid(geometry: Any) -> Grid:
    size, spacing, origin, direction = geometry
    return grid_of_header(tuple(int(n) for n in size), spacing, origin, np.asarray(direction))


def _volume(image: Any) -> Volume:
    voxels, geometry = image
    grid = _grid(geometry)
    return Volume(torch.from_numpy(np.frombuffer(voxels, dtype=np.float32).reshape(1, *grid.shape)), grid)


def _points(data: bytearray, dimension: int) -> Points:
    return np.frombuffer(data).reshape(-1, dimension)
