"""How far each compiled kernel is from torch, and from what this machine could do at best.

    python kernels.py [--size 64] [--runs 5]

The floor of a kernel is the longer of two times: to move its inputs and outputs through memory once, at the speed of a
copy measured here, and to do its operations at the speed of a product of matrices measured here. One thread, CPU
seconds, medians; leaves with 1 if a compiled kernel is slower than torch.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import tools
import torch
from torch import Tensor

import report
from semreg.core.geometry import Grid
from semreg.core.kernels import BACKENDS, Comparison, Costs, Extended, JointComparison
from semreg.core.kernels.contract import Kernels
from semreg.core.scattered import Table
from semreg.distances import DISTANCES
from semreg.distances.differences import l2_cost, l2_slope
from semreg.transforms.bspline import SplineLattice

CHANNELS = 12
"""Of MIND-SSC."""


@dataclass(frozen=True)
class Case:
    """One call of a backend, and what it must at least do."""

    name: str
    call: Callable[[Kernels], object]
    moved: float
    """Numbers (float32) that go in and out."""
    operations: float


def main() -> None:
    """Time all, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="samples an axis")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bandwidth, speed = copy_speed(given.runs), product_speed(given.runs)
    rows, slower = [], []
    for case in cases(given.size):
        native, reference = (
            seconds(partial(case.call, BACKENDS[name]), given.runs) for name in ("native", "reference")
        )
        floor = max(4 * case.moved / bandwidth, case.operations / speed)
        figures = [1e3 * native, 1e3 * reference, reference / native, 4e-6 * case.moved, 1e-6 * case.operations]
        rows.append(
            [case.name, *map(report.number, figures), report.number(1e3 * floor), report.number(native / floor, 1)]
        )
        slower += [case.name] if native > reference else []
    facts = report.machine(1) | {
        "samples an axis": str(given.size),
        "memory": f"{bandwidth * 1e-9:.1f} GB/s copied, both ways counted",
        "arithmetic": f"{speed * 1e-9:.1f} billion operations a second in a product of matrices",
        "instructions": str(instructions()),
    }
    header = [
        "kernel",
        "native, ms",
        "torch, ms",
        "torch / native",
        "moved, MB",
        "million operations",
        "floor, ms",
        "native / floor",
    ]
    text = f"# Kernels\n\n{report.bullets(facts)}\n{report.markdown_table(header, rows)}"
    print(text)
    (tools.RESULTS / "kernels.md").write_text(text, encoding="utf-8")
    sys.exit(bool(slower))


def cases(size: int) -> list[Case]:
    """What one step of a registration calls, at ``size`` samples an axis."""
    generator = torch.Generator().manual_seed(0)
    shape, count = (size,) * 3, size**3

    def noise(*of: int) -> Tensor:
        return torch.randn(of, generator=generator)

    table, fixed, share = Table(noise(CHANNELS, *shape)), noise(count, CHANNELS), torch.full((count,), 1 / count)
    index = torch.stack(torch.meshgrid(*[torch.arange(size) + 0.3] * 3, indexing="ij")).flatten(1).float()
    index += 0.5 * noise(*index.shape)
    image, other, weight = noise(count, 1), noise(count, 1), torch.ones(count)
    grid = Grid(shape, (1.0,) * 3, (0.0,) * 3, np.eye(3))
    lattice = SplineLattice(grid, (4.0,) * 3)
    bases, coefficients = lattice.bases(lattice.positions(grid)), noise(3, *lattice.shape)
    rows = 2 * lattice.shape[0]
    places = [np.linspace(0.0, size - 1.0, rows)] * 3
    slopes = [lattice.bases(places, axis) for axis in range(3)]
    vox, points = 0.3 * noise(3, *shape), coefficients.numel()
    nodes = size // 4
    offsets = torch.tensor(list(itertools.product(range(-4, 5), repeat=3)))
    near = Extended(noise(CHANNELS, *[nodes] * 3), None, (0, 0, 0))
    far = Extended(noise(CHANNELS, *[nodes + 8] * 3), None, (4, 4, 4))
    costs, total = Costs(compare=l2_cost, formula="l2", smoothing=2), torch.empty(nodes**3, len(offsets))
    found = torch.rand(total.shape, generator=generator)
    identity = np.eye(4)

    def joint(name: str) -> JointComparison:
        return JointComparison(value=DISTANCES[name], shape=shape, formula=name, radius=2)

    compared = Comparison(slope=l2_slope, formula="l2")
    spline = 2 * 4 * 3 * (size * lattice.shape[0] ** 2 + size**2 * lattice.shape[0] + count)
    inner = torch.rand(shape, generator=generator)
    return [
        Case(
            "compare, l2",
            lambda b: b.compare(table, fixed, index, share, compared),
            count * (2 * CHANNELS + 7),
            count * CHANNELS * 38,
        ),
        Case(
            "compare_jointly, ncc",
            lambda b: b.compare_jointly(image, other, weight, joint("ncc")),
            4 * count,
            25 * count,
        ),
        Case(
            "compare_jointly, lncc",
            lambda b: b.compare_jointly(image, other, weight, joint("lncc")),
            4 * count,
            160 * count,
        ),
        Case("read", lambda b: b.read(table, index), count * (2 * CHANNELS + 3), count * CHANNELS * 14),
        Case("pull", lambda b: b.pull(table, index, fixed), count * (2 * CHANNELS + 6), count * CHANNELS * 34),
        Case("spline_product", lambda b: b.spline_product(coefficients, bases), points + 3 * count, spline),
        Case("spline_adjoint", lambda b: b.spline_adjoint(vox, bases), points + 3 * count, spline),
        Case(
            "compression",
            lambda b: b.compression(coefficients, slopes, 0.3),
            2 * points + 2 * 3 * 2 * rows * lattice.shape[0],
            2 * 4 * 9 * (rows * lattice.shape[0] ** 2 + rows**2 * lattice.shape[0] + rows**3) + 60 * rows**3,
        ),
        Case(
            "patch_differences", lambda b: b.patch_differences(inner, None, 1, 2), (1 + CHANNELS) * count, 6 * 8 * count
        ),
        Case(
            "cost_volume",
            lambda b: b.cost_volume(near, far, offsets, costs, total, add=False),
            total.numel(),
            total.numel() * (3 * CHANNELS + 12),
        ),
        Case(
            "coupled_choice",
            lambda b: b.coupled_choice(found, offsets, (nodes,) * 3, (0.1, 1.0)),
            2 * total.numel(),
            2 * 8 * total.numel(),
        ),
        Case("compose", lambda b: b.compose(vox, vox, identity, identity), 9 * count, 90 * count),
        Case("jacobian_determinant", lambda b: b.jacobian_determinant(vox), 4 * count, 35 * count),
        Case("least_corner", lambda b: b.least_corner(vox), 4 * count, 260 * count),
    ]


def seconds(call: Callable[[], object], runs: int) -> float:
    """CPU seconds of one call: the median, each run as many calls as take a tenth of a second."""
    call()
    start = time.process_time()
    call()
    calls = max(1, round(0.1 / max(time.process_time() - start, 1e-6)))
    found = []
    for _ in range(runs):
        start = time.process_time()
        for _ in range(calls):
            call()
        found.append((time.process_time() - start) / calls)
    return statistics.median(found)


def copy_speed(runs: int) -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    x = torch.ones(1 << 26)
    y = torch.ones_like(x)
    return 2 * 4 * x.numel() / seconds(lambda: y.copy_(x), runs)


def product_speed(runs: int) -> float:
    """Operations a second of a product of matrices in single precision."""
    a = torch.ones(512, 512)
    return 2 * 512**3 / seconds(lambda: a @ a, runs)


def instructions() -> str:
    """The set that the compiled kernels use here."""
    import semreg_kernels

    return semreg_kernels.load().semreg_kernels_instructions().decode()


if __name__ == "__main__":
    main()
