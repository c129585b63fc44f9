"""What does a start network give: phantoms with large motion, registered without and with one as a start.

    python start.py [--taught] [--unseen N] [--steps N] [--report]

The network is that of ``examples/train_network.py``, trained here with ``ImpactLoss`` on slices of phantoms (CT
and MR, 64 × 64 voxels of 3 mm) whose largest displacement is 10 to 50 mm; no displacement is shown to it, but with
``--taught`` the true ones are, which stands for a network that was trained on far more images. Then it is a
file of TorchScript with its description, as users have it, and sees pairs of other bodies with other motions. Of each
the mean landmark error is told: before, of the network alone, and of registrations without and with it as a start.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import tools
import torch

import report
import semreg
from semreg.core.fields import Field
from semreg.features.contract import Normalisation
from semreg.features.registrar import load_registrar
from semreg.features.registrar_spec import RegistrarSpec
from semreg.phantom import PhantomPair, make_pair
from semreg.runtime.settings import to_toml

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_network.py"
MOTIONS_MM = (10.0, 20.0, 35.0, 50.0)
"""Largest displacements of the pairs."""
SEEN, UNSEEN_FROM = 30, 1000
"""Pairs of each motion that the network learns from, and the first seed of those it never saw."""
BODY = -500.0
"""HU above which a voxel of the fixed image is of the body."""
RUNS: Mapping[str, tuple[str, ...]] = {
    "with search": ("align.transform=none",),
    "descent alone": ("align.transform=none", "coarse.enabled=false"),
}
"""Settings beside the defaults. Both images lie on one grid, and the network sees them as it was trained."""
SPEC = RegistrarSpec(
    first="fixed", direction="fixed-to-moving", unit="voxels", components="tensor", dimension=2, shape=(64, 64),
    normalisation=Normalisation(kind="z-score"),
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """One way, on one pair."""

    motion_mm: float
    way: str
    error_mm: float
    seconds: float = 0.0
    used: bool | None = None
    folded: float = 0.0


def main() -> int:
    """Train, register, print, write; 1 if a start made a registration worse on average by more than a tenth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--unseen", type=int, default=8, metavar="N", help="pairs of each motion that are measured")
    add("--steps", type=int, default=1500, metavar="N", help="of the training")
    add("--taught", action="store_true", help="train on the true displacements of the pairs that it sees")
    add("--report", action="store_true", help="write the tables to results/start.md, or start_taught.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    example = SimpleNamespace(**runpy.run_path(str(EXAMPLE), run_name="train_network"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.pt"
        seconds = trained(example, given.steps, path, taught=given.taught)
        found = [each for pair, motion in unseen(given.unseen) for each in scored(example, pair, motion, path)]
    facts = report.machine(1) | {"semreg": report.versions_line(tools.semreg_versions())}
    text = (
        f"# A start network{', taught' if given.taught else ''}\n\n"
        f"`python benchmarks/start.py{' --taught' if given.taught else ''} --report`\n\n{report.bullets(facts)}\n"
        f"A network of {example.Registrar().down[0][0].out_channels} channels, trained for {given.steps} steps on "
        f"{'the true displacements' if given.taught else 'MIND-SSC alone'} "
        f"({seconds:.0f} s) of {SEEN} pairs of each motion; {given.unseen} pairs of each that it never saw.\n\n"
        f"{table(found)}\n{used(found)}"
    )
    print(text)
    if given.report:
        (tools.RESULTS / f"start{'_taught' if given.taught else ''}.md").write_text(text, encoding="utf-8")
    return int(any(harm(found, way) for way in RUNS))


def pair_of(seed: int, motion: float) -> PhantomPair:
    """Two slices on one grid."""
    return make_pair(size=64, seed=seed, dimension=2, frames="isotropic", displacement_mm=motion)


def unseen(count: int) -> list[tuple[PhantomPair, float]]:
    """The pairs that are measured, with the largest displacement of each."""
    return [(pair_of(UNSEEN_FROM + n, motion), motion) for motion in MOTIONS_MM for n in range(count)]


def trained(example: Any, steps: int, path: Path, *, taught: bool) -> float:
    """Train, and write the network and its description; the seconds that took."""
    began = time.perf_counter()
    pairs = [pair_of(100 * k + n, motion) for k, motion in enumerate(MOTIONS_MM) for n in range(SEEN)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = example.Registrar()
    (teach if taught else example.train)(network, pairs, example.Course(steps=steps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(network.eval(), torch.rand(1, 2, 64, 64)), str(path))
    path.with_suffix(".toml").write_text(to_toml(SPEC), encoding="utf-8")
    return time.perf_counter() - began


def teach(network: torch.nn.Module, pairs: Sequence[PhantomPair], course: Any) -> None:
    """Lower the squared error of the displacement in the bodies of the pairs."""
    images = torch.stack([torch.cat([pair.fixed.data, pair.moving.data]) for pair in pairs])
    body = (images[:, :1] > BODY).float()
    images = (images - images.mean((2, 3), keepdim=True)) / images.std((2, 3), keepdim=True)
    truth = torch.stack([pair.true_field().vox for pair in pairs])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(course.seed)
    for _ in range(course.steps):
        chosen = torch.randperm(len(images), generator=generator)[: course.batch]
        value = ((network(images[chosen]) - truth[chosen]).square() * body[chosen]).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()


def scored(example: Any, pair: PhantomPair, motion: float, path: Path) -> list[Scored]:
    """All ways on one pair."""
    still = torch.zeros(2, *pair.fixed.grid.shape)
    with torch.no_grad():
        alone = load_registrar(path)(*example.stacked([pair])[0].split(1))
    found = [
        Scored(motion, "before", example.error_mm(pair, still)),
        Scored(motion, "network alone", example.error_mm(pair, alone)),
    ]
    for way, settings in RUNS.items():
        for start in (None, path):
            began = time.process_time()
            config = semreg.configure("uncertainty.enabled=false", *settings)
            result = semreg.register(pair.fixed, pair.moving, start=start, config=config)
            found.append(
                Scored(
                    motion, way if start is None else f"{way}, started", error_of(pair, result.field),
                    time.process_time() - began, None if start is None else result.record.start.used,
                    result.record.jacobian.folded_share,
                )
            )  # fmt: skip
    return found


def error_of(pair: PhantomPair, field: Field) -> float:
    """Mean landmark error in mm."""
    there = torch.from_numpy(field.map(pair.fixed_points.T.numpy())).T
    return float(torch.linalg.vector_norm(there - pair.moving_points, dim=1).mean())


def errors(found: Sequence[Scored], way: str, motion: float | None = None) -> list[float]:
    """Those of one way, in the order of the pairs."""
    return [each.error_mm for each in found if each.way == way and motion in (None, each.motion_mm)]


def table(found: Sequence[Scored]) -> str:
    """Mean error in mm, by motion."""
    ways = list(dict.fromkeys(each.way for each in found))
    rows = []
    for motion in MOTIONS_MM:
        cells = [f"{fmean(errors(found, way, motion)):.2f}" for way in ways]
        rows.append([f"{motion:.0f}", *cells])
    worst = [f"{max(errors(found, way)):.2f}" for way in ways]
    seconds = [f"{fmean(each.seconds for each in found if each.way == way):.2f}" for way in ways]
    rows += [["largest of all pairs", *worst], ["CPU seconds", *seconds]]
    return report.markdown_table(["largest displacement, mm", *ways], rows)


def used(found: Sequence[Scored]) -> str:
    """How often it was used, and how often that helped."""
    lines = ["How often the start was used, and on how many pairs the error then was lower or higher by over 0.3 mm:\n"]
    rows = []
    for way in RUNS:
        for motion in MOTIONS_MM:
            change = [
                b - a for a, b in zip(errors(found, way, motion), errors(found, f"{way}, started", motion), strict=True)
            ]
            taken = [each.used for each in found if each.way == f"{way}, started" and each.motion_mm == motion]
            folded = max(each.folded for each in found if each.way.startswith(way) and each.motion_mm == motion)
            lower, higher = sum(c < -0.3 for c in change), sum(c > 0.3 for c in change)
            rows.append([way, f"{motion:.0f}", f"{sum(map(bool, taken))} of {len(taken)}", str(lower), str(higher)])
            rows[-1].append(f"{folded:.4f}")
    header = ["registration", "largest displacement, mm", "used", "lower", "higher", "most folded"]
    return "\n".join([*lines, report.markdown_table(header, rows)])


def harm(found: Sequence[Scored], way: str) -> bool:
    """Whether the mean over all pairs rose by more than a tenth."""
    return fmean(errors(found, f"{way}, started")) > 1.1 * fmean(errors(found, way))


if __name__ == "__main__":
    raise SystemExit(main())
