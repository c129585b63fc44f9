"""A parameter file of elastix with the metric IMPACT: the error beside itk-impact's, and what transformix makes of it.

    python elastix.py [PAIRS.toml] [--only NAME ...] [--report]

The file asks for what itk-impact's dense registration was given: MIND-SSC as a network, of voxels of 2 mm, squared
differences. Errors of itk-impact are those of results/peers.json. The result is written as elastix's own file and
applied to the landmarks by transformix, from an environment of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import SimpleITK as sitk
import tools
from guidance import points
from scoring import folded_percent, landmark_errors, read_transform

import report

PARAMETERS = """\
(Registration "MultiResolutionRegistration")
(FixedImageDimension 3)
(MovingImageDimension 3)
(FixedInternalImagePixelType "float")
(MovingInternalImagePixelType "float")
(Transform "RecursiveBSplineTransform")
(HowToCombineTransforms "Compose")
(FixedImagePyramid "FixedGenericImagePyramid")
(MovingImagePyramid "MovingGenericImagePyramid")
(NumberOfResolutions 3)
(FinalGridSpacingInPhysicalUnits 8.0 8.0 8.0)
(Optimizer "AdaptiveStochasticGradientDescent")
(MaximumNumberOfIterations 100)
(ImageSampler "RandomCoordinate")
(NumberOfSpatialSamples 4000)
(NewSamplesEveryIteration "true")
(BSplineInterpolationOrder 1)
(FinalBSplineInterpolationOrder 3)
(ResampleInterpolator "FinalBSplineInterpolator")
(Resampler "DefaultResampler")
(DefaultPixelValue 0)
(WriteResultImage "false")
(Metric "Impact")
(ImpactModelsPath "{network}" "{network}" "{network}")
(ImpactDimension 3 3 3)
(ImpactNumberOfChannels 1 1 1)
(ImpactPatchSize "0 0 0" "0 0 0" "0 0 0")
(ImpactVoxelSize "2 2 2" "2 2 2" "2 2 2")
(ImpactLayersMask "1" "1" "1")
(ImpactSubsetFeatures 12 12 12)
(ImpactPCA 0 0 0)
(ImpactDistance "L2" "L2" "L2")
(ImpactLayersWeight "1" "1" "1")
(ImpactMode "Static" "Static" "Static")
(ImpactGPU -1)
(ImpactUseMixedPrecision "false" "false" "false")
(ImpactFeaturesMapUpdateInterval -1 -1 -1)
(ImpactWriteFeatureMaps "false")
"""
"""As its users write them: one file for a B-spline, a word for each resolution."""
TRANSFORMIX = """\
import sys, itk
from pathlib import Path
parameters = itk.ParameterObject.New()
parameters.AddParameterFile(sys.argv[1])
moving = itk.imread(sys.argv[2], itk.F)
itk.transformix_pointset(moving, parameters, fixed_point_set_file_name=sys.argv[3], output_directory=sys.argv[4])
"""
BAR_MM = 1e-3


def main() -> int:
    """Run the file on each pair, score, apply, print; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("pairs", type=Path, nargs="?", default=tools.SHARED / "data" / "pairs.toml", help="list of the pairs")
    add("--only", nargs="+", default=["liver"], metavar="NAME", help="pairs whose names begin so, with landmarks")
    add("--report", action="store_true", help="write the table to results/elastix.md")
    given = parser.parse_args()
    if not given.pairs.exists():
        raise SystemExit(f"expected a list of pairs at {given.pairs}, found none: name it")
    listed = tomllib.loads(given.pairs.read_text(encoding="utf-8"))["pair"]
    root, out = given.pairs.parent, tools.OUT / "elastix"
    out.mkdir(parents=True, exist_ok=True)
    network, parameters = out / "mind.pt", out / "bspline.txt"
    subprocess.run([sys.executable, tools.ROOT / "benchmarks" / "mind_network.py", network], check=True)
    parameters.write_text(PARAMETERS.format(network=network.name), encoding="utf-8")
    elastix = tools.peer_python("elastix", tools.default_venv("elastix"))
    theirs, rows, errors = impact(), [], []
    for pair in listed:
        if pair["name"].startswith(tuple(given.only)) and "fixed_landmarks" in pair and pair["name"] in theirs:
            own, folded, apart = run(pair, root, parameters, out / pair["name"], elastix)
            errors.append((own, theirs[pair["name"]], apart))
            rows.append([pair["name"], *(f"{each:.3f}" for each in errors[-1][:2]), f"{folded:g}", f"{apart:.1e}"])
            print(rows[-1], flush=True)
    own, other = (fmean(column) for column in list(zip(*errors, strict=True))[:2])
    rows.append(["mean", f"{own:.3f}", f"{other:.3f}", "", ""])
    worst = max(apart for *_, apart in errors)
    bars = [
        ["error at most 1.1 times itk-impact's", f"{own / other:.2f}", report.holds(own <= 1.1 * other)],
        [f"transformix within {BAR_MM:g} mm", f"{worst:.1e} mm", report.holds(worst <= BAR_MM)],
    ]
    facts = report.machine(1) | {
        "semreg": report.versions_line(tools.semreg_versions()),
        "elastix": report.versions_line(tools.peer_versions("elastix", elastix)),
        "command": "`python benchmarks/elastix.py --report`",
    }
    header = ["pair", "the file here, mm", "itk-impact, mm", "folded here, %", "transformix from transform.h5, mm"]
    text = (
        f"# Parameter files of elastix\n\n{report.bullets(facts)}\n{report.markdown_table(header, rows)}\n"
        f"{report.markdown_table(['bar', 'seen', ''], bars)}"
    )
    print(text)
    if given.report:
        (tools.RESULTS / "elastix.md").write_text(text, encoding="utf-8")
    return 0 if "MISSED" not in text else 1


def impact() -> dict[str, float]:
    """The landmark errors of itk-impact in mm, as measured beside the other peers."""
    runs = json.loads((tools.RESULTS / "peers.json").read_text(encoding="utf-8"))["runs"]
    return {
        each["pair"]: each["scores"]["TRE"] for each in runs if each["tool"] == "impact" and "TRE" in each["scores"]
    }


def run(pair: dict[str, Any], root: Path, parameters: Path, out: Path, elastix: Path) -> tuple[float, float, float]:
    """The error in mm, the folded voxels in percent, and the largest distance in mm from what transformix says."""
    fixed, moving = (root / pair[side] for side in ("fixed", "moving"))
    semreg: list[str | Path] = [sys.executable, "-m", "semreg"]
    shutil.rmtree(out, ignore_errors=True)
    wanted: list[str | Path] = ["--elastix", parameters, "--no-report", "--device", "cpu", "--quiet"]
    subprocess.run([*semreg, "register", fixed, moving, "-o", out, *wanted], check=True)
    transform = read_transform(out)
    if transform is None:
        raise SystemExit(f"expected a transform in {out}, found none")
    here, there = points(pair, root)
    file, listed = out / "TransformParameters.0.txt", out / "points.txt"
    subprocess.run([*semreg, "convert", out / "transform.h5", file, "--reference", fixed], check=True)
    lines = [" ".join(f"{value:.9g}" for value in point) for point in here]
    listed.write_text("\n".join(["point", str(len(lines)), *lines]) + "\n", encoding="utf-8")
    subprocess.run([elastix, "-c", TRANSFORMIX, file, moving, listed, out], check=True, capture_output=True, cwd=out)
    said = [
        line.split("OutputPoint = [")[1].split("]")[0].split()
        for line in (out / "outputpoints.txt").read_text(encoding="utf-8").splitlines()
    ]
    mapped = np.array([transform.TransformPoint([float(value) for value in point]) for point in here])
    apart = float(np.abs(mapped - np.array(said, dtype=float)).max())
    image = sitk.ReadImage(str(fixed))
    return float(landmark_errors(transform, here, there).mean()), folded_percent(transform, image), apart


if __name__ == "__main__":
    sys.exit(main())
