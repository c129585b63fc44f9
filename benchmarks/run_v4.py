"""Times one evaluation of ``itk.ImpactImageToImageMetricv4``: value and derivative, one thread, CPU seconds, as JSON.

    python run_v4.py [--size 128] [--share 0.1] [--points 500] [--only Static] [--built-in]

The same script runs in two environments: with semreg, whose ``semreg.itk.api`` gives ``itk`` the class, and in one of
its own with itk-impact. Images are made up; the network is a MIND descriptor of 12 channels, written as TorchScript.
Figures are medians of three evaluations at different transforms, of one where it takes longer than 20 s.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mind_network import Mind

import itk

if find_spec("semreg"):
    import_module("semreg.itk.api")

IMAGE = itk.Image[itk.F, 3]
PATCH = 7
MARGIN = 8
"""Voxels between the points and the border, so that all of them count at every transform."""
LONG_SECONDS = 20.0


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="voxels an axis")
    parser.add_argument("--share", type=float, default=0.1, help="of the voxels, as points of Static")
    parser.add_argument("--points", type=int, default=500, help="points of Jacobian")
    parser.add_argument("--built-in", action="store_true", help="semreg's own formula instead of the network")
    parser.add_argument("--only", choices=("Static", "Jacobian"), help="one mode alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    pair = image(given.size, 0.0), image(given.size, 0.1)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "mind.pt"
        torch.jit.script(Mind().eval()).save(str(network))
        for mode, count in (("Static", round(given.share * given.size**3)), ("Jacobian", given.points)):
            for distance in ("L2", "NCC"):
                if given.only in (None, mode):
                    metric = make_metric(pair, "mind" if given.built_in else str(network), mode, distance)
                    times = measure(metric, points(given.size, count))
                    runs.append({"mode": mode, "distance": distance} | times)
                    sys.stderr.write(f"{runs[-1]}\n")
    found = {"environment": environment(), "size": given.size, "peak_bytes": peak_bytes(), "runs": runs}
    print(json.dumps(found, indent=2))


def image(size: int, shift: float) -> Any:
    """Waves and a little noise, float32, 1 mm voxels; ``shift`` moves the waves, in rad."""
    z, y, x = np.indices((size,) * 3, dtype=np.float32)
    waves = 100 * np.sin(x / 9 + shift) * np.cos(y / 7) * np.sin(z / 11 + shift)
    noise = np.random.default_rng(round(10 * shift)).normal(size=waves.shape)
    return itk.image_from_array((waves + 2 * noise).astype(np.float32))


def points(size: int, count: int) -> Any:
    """Random points inside, the same in every environment."""
    made = itk.PointSet[itk.F, 3].New()
    for number, place in enumerate(np.random.default_rng(1).uniform(MARGIN, size - 1 - MARGIN, (count, 3)).tolist()):
        made.SetPoint(number, place)
    return made


def make_metric(pair: tuple[Any, Any], network: str, mode: str, distance: str) -> Any:
    """The metric on the pair, before its points and its moving transform are known."""
    patch = [PATCH] * 3 if mode == "Jacobian" else [0] * 3
    model = itk.ImpactModelConfiguration(network, 3, 1, patch, [1.0] * 3, [0] * 3, [True], False)
    metric = itk.ImpactImageToImageMetricv4[IMAGE, IMAGE].New()
    metric.SetFixedImage(pair[0])
    metric.SetMovingImage(pair[1])
    metric.AddModelConfiguration(model)
    metric.SetDistance([distance])
    metric.SetLayersWeight([1.0])
    metric.SetSubsetFeatures([12])  # all of them: itk-impact takes 0 for one drawn for each point
    metric.SetPCA([0])
    metric.SetMode(mode)
    metric.NormalizeLossesOff()
    metric.SetSeed(1)
    metric.SetFixedTransform(itk.IdentityTransform[itk.D, 3].New())
    metric.SetMaximumNumberOfWorkUnits(1)
    return metric


def measure(metric: Any, where: Any) -> dict[str, Any]:
    """CPU seconds of the preparation and of one evaluation, and what came out at the first transform."""
    metric.SetFixedSampledPointSet(where)
    metric.SetUseSampledPointSet(True)
    transform = itk.AffineTransform[itk.D, 3].New()
    metric.SetMovingTransform(transform)
    prepared = seconds(metric.Initialize)
    spent, first = [], {}
    for turn in range(3):
        shift_by(transform, 0.3 + 0.2 * turn)
        derivative = itk.Array[itk.D]()  # GetValueAndDerivative has no form in Python
        spent.append(seconds(lambda into=derivative: metric.GetDerivative(into)))
        first = first or {
            "value": metric.GetCurrentValue(),
            "derivative": [derivative.GetElement(i) for i in range(derivative.GetSize())],
            "valid_points": metric.GetNumberOfValidPoints(),
        }
        if spent[-1] > LONG_SECONDS:
            break
    count = where.GetNumberOfPoints()
    evaluation = statistics.median(spent)
    times = {"points": count, "initialize_cpu_s": prepared, "evaluation_cpu_s": evaluation, "evaluations": len(spent)}
    return times | {"evaluation_us_a_point": 1e6 * evaluation / count} | first


def shift_by(transform: Any, mm: float) -> None:
    """Set the translation of an affine transform; its matrix stays the identity."""
    parameters = itk.OptimizerParameters[itk.D](12)
    for number, value in enumerate((1, 0, 0, 0, 1, 0, 0, 0, 1, mm, -0.6 * mm, 0.4 * mm)):
        parameters.SetElement(number, float(value))
    transform.SetParameters(parameters)


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of a call, all threads."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def peak_bytes() -> int:
    """The most memory this process has held, Linux."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def environment() -> dict[str, str]:
    """Whose metric it is, and the versions."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in ("semreg", "itk-impact", "itk", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
