"""Asymmetric grids, fields on them, and their twins in SimpleITK: what all tests of the geometry start from.

Sizes, spacings and origins differ on every axis and directions are oblique, so that a missing flip, a transposed
direction or a forgotten rescale cannot cancel. The twins are built from the header alone, not with semreg's bridge.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from semreg.core.fields import Field, Volume
from semreg.core.geometry import Grid
from semreg.core.sampling import base_index, transform_index
from semreg.runtime.memory import available_bytes

torch.set_num_threads(1)  # small problems: threads that wait for each other cost more than they give
settings.register_profile("any speed", settings.default, deadline=None)
settings.load_profile("any speed")

Array = npt.NDArray[np.float64]
T = TypeVar("T")

PATIENCE_SECONDS = 600.0
"""How long a test waits for what must come: a test that hangs ends, and no slow machine reaches it."""

WORKER_BYTES = 3e9
"""What a process that runs tests may come to hold, with itk, torch and a registration that it starts."""


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which need not be there
def pytest_xdist_auto_num_workers() -> int:
    """As many processes as this one has processors, and memory for."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, int(available_bytes() / WORKER_BYTES)))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, even where the shell that started the tests has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """The command owns its process; here it does not: log, signals and threads are given back."""
    logger = logging.getLogger("semreg")
    before = logger.handlers[:], logger.propagate, logger.level
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    threads = torch.get_num_threads()
    yield
    logger.handlers, logger.propagate = before[0], before[1]
    logger.setLevel(before[2])
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.set_num_threads(threads)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """Run the command in this process: exit code, standard output, standard error."""
    from semreg.cli import main

    def command(*arguments: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return command


def eventually(condition: Callable[[], T]) -> T:
    """Wait until ``condition`` returns something true, and return that."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return found


def rotation(dimension: int, degrees: float = 17.0) -> Array:
    """An oblique rotation: by ``degrees`` about (1, 2, 3) in 3-D, in the plane in 2-D."""
    angle = np.deg2rad(degrees)
    if dimension == 2:
        return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x, y, z = np.array([1.0, 2.0, 3.0]) / np.sqrt(14.0)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def signed_permutations(dimension: int) -> list[Array]:
    """All 48 (3-D) or 8 (2-D) axis-aligned directions, reflections included."""
    eye = np.eye(dimension)
    return [
        eye[:, list(order)] * np.array(signs)
        for order in itertools.permutations(range(dimension))
        for signs in itertools.product((1.0, -1.0), repeat=dimension)
    ]


ORIENTATIONS = signed_permutations(3)


def make_grid(size: Any, spacing: Any, origin: Any, direction: npt.ArrayLike) -> Grid:
    """A grid from sequences in ITK's order."""
    rows = tuple(map(tuple, np.asarray(direction, dtype=float)))
    return Grid(tuple(size), tuple(spacing), tuple(origin), rows)


def oblique_grid(dimension: int, orientation: Array | None = None, degrees: float = 17.0) -> Grid:
    """The grid most tests use: small, anisotropic, off the origin, oblique; axes permuted by ``orientation``."""
    direction = rotation(dimension, degrees) @ (np.eye(dimension) if orientation is None else orientation)
    return make_grid((7, 6, 5)[:dimension], (0.8, 1.3, 2.1)[:dimension], (-31.0, 12.5, 77.0)[:dimension], direction)


def centre(grid: Grid) -> Array:
    """The centre of the box, a point in mm."""
    return np.asarray(grid.corners_xyz().mean(0))


def grid_at(point: npt.ArrayLike, size: Any, spacing: Any, direction: npt.ArrayLike) -> Grid:
    """A grid whose box is centred at ``point`` (mm)."""
    offset = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    return make_grid(size, spacing, np.asarray(point) - np.asarray(direction) @ offset, direction)


def moving_grid(fixed: Grid, orientation: Array | None = None) -> Grid:
    """A grid in another oblique frame that about covers the box of ``fixed`` and sticks out of it on some sides."""
    n = fixed.dimension
    direction = rotation(n, -23.0) @ (np.eye(n) if orientation is None else orientation)
    return grid_at(centre(fixed) + np.array([0.7, -0.4, 1.1])[:n], (6, 9, 8)[:n], (1.1, 0.9, 1.7)[:n], direction)


def points_of(grid: Grid) -> Tensor:
    """The point of every voxel, (D, *S), x y z in mm, float64."""
    return transform_index(grid.index_to_point(), base_index(grid.shape, like=torch.zeros(1, dtype=torch.float64)))


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal noise that depends on nothing but ``seed``."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def noise_volume(grid: Grid, channels: int = 1, seed: int = 0) -> Volume:
    """Noise on a grid, float64."""
    return Volume(noise(channels, *grid.shape, seed=seed), grid)


def smooth_field(grid: Grid, amplitude_mm: float = 1.5, seed: int = 0) -> Field:
    """A smooth field, sines of the position, up to about ``amplitude_mm`` an axis and far from folding."""
    points = points_of(grid) - torch.as_tensor(centre(grid)).reshape(-1, *[1] * grid.dimension)
    phases = noise(grid.dimension, seed=seed)
    waves = torch.tensor([[0.11, 0.07, -0.05], [-0.06, 0.09, 0.08], [0.04, -0.1, 0.12]], dtype=torch.float64)
    waves = waves[: grid.dimension, : grid.dimension]
    angle = torch.einsum("ij,j...->i...", waves, points) + phases.reshape(-1, *[1] * grid.dimension)
    return Field.from_mm(amplitude_mm * torch.sin(angle), grid)


def give_header(image: Any, grid: Grid) -> Any:
    """The same ITK or SimpleITK image with the header of ``grid``."""
    image.SetSpacing(grid.spacing_xyz)
    image.SetOrigin(grid.origin_xyz)
    image.SetDirection(tuple(np.asarray(grid.direction).ravel()))
    return image


def sitk_image(volume: Volume) -> sitk.Image:
    """The first channel as a SimpleITK image."""
    return give_header(sitk.GetImageFromArray(volume.data[0].numpy()), volume.grid)


def sitk_vectors(field: Field) -> sitk.Image:
    """A field as ITK stores it: vectors in mm, components x y z last."""
    return give_header(sitk.GetImageFromArray(field.mm().movedim(0, -1).numpy(), isVector=True), field.grid)


def sitk_transform(field: Field) -> sitk.DisplacementFieldTransform:
    """A field as SimpleITK's transform."""
    return sitk.DisplacementFieldTransform(sitk.Cast(sitk_vectors(field), sitk.sitkVectorFloat64))


def sitk_resample(
    volume: Volume, grid: Grid, transform: sitk.Transform | None = None, *, nearest: bool = False, outside: float = -9.0
) -> Array:
    """SimpleITK's Resample of the first channel on ``grid``."""
    reference = give_header(sitk.Image(list(grid.size_xyz), sitk.sitkUInt8), grid)
    interpolator = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    chosen = transform if transform is not None else sitk.Transform(grid.dimension, sitk.sitkIdentity)
    return np.asarray(
        sitk.GetArrayFromImage(sitk.Resample(sitk_image(volume), reference, chosen, interpolator, outside))
    )


@st.composite
def grids(draw: st.DrawFn, dimension: int | None = None) -> Grid:
    """Random oblique grids in 2-D and 3-D, reflections and axes of one voxel included."""
    n = dimension or draw(st.sampled_from((2, 3)))
    real = st.floats(-1.0, 1.0, allow_nan=False, width=32)
    entries = np.array(draw(st.lists(real, min_size=n * n, max_size=n * n)), dtype=float).reshape(n, n)
    direction, _ = np.linalg.qr(entries + 2.5 * signed_permutations(n)[draw(st.integers(0, (8, 48)[n - 2] - 1))])
    return make_grid(
        draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)),
        draw(st.lists(st.floats(0.2, 5.0), min_size=n, max_size=n)),
        draw(st.lists(st.floats(-300.0, 300.0), min_size=n, max_size=n)),
        direction,
    )


LONGEST = (
    "project/test_tutorials.py", "fuzz/test_fuzz.py", "cli/test_cli_batch.py", "project/test_site_browser.py",
    "phantom/test_demo.py", "registration/test_alignment.py", "cli/test_cli_register.py", "itk/test_impact_metric.py",
)  # fmt: skip
"""Files that take longest: begun first, so that no process is left with one of them when the others have ended."""


def pytest_collection_modifyitems(items):
    """The longest files first, all others in their order."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get("/".join(item.path.parts[-2:]), len(LONGEST)))
