"""Registers two images with itk-impact as its example for dense registration does; run in an environment of its own.

    python run_impact.py FIXED MOVING -o OUT --model NETWORK

``ImpactCoarseRegistration``, then ``ImpactFineRegistration``, the defaults of both, features of one network at 2 mm,
on the CPU. OUT/field.mha is the displacement field on the fixed grid: fixed to moving, mm, LPS.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch

import itk

VOXEL_MM = 2.0
"""As in the example."""


def main() -> None:
    """Read, register, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="TorchScript, one layer of features")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    given.fixed, given.moving, given.model = (path.resolve() for path in (given.fixed, given.moving, given.model))
    given.output.mkdir(parents=True, exist_ok=True)
    os.chdir(given.output)  # it leaves a deformationField.nii wherever it runs
    fixed, moving = (itk.imread(str(path), itk.F) for path in (given.fixed, given.moving))
    kinds = (type(fixed), type(moving))
    coarse = prepared(itk.ImpactCoarseRegistration[kinds].New(), fixed, moving, given.model)
    coarse.Update()
    fine = prepared(itk.ImpactFineRegistration[kinds].New(), fixed, moving, given.model)
    fine.SetInitialDisplacementField(coarse.GetDisplacementField())
    fine.Update()
    itk.imwrite(fine.GetDisplacementField(), "field.mha")


def prepared(stage: Any, fixed: Any, moving: Any, model: Path) -> Any:
    """A stage with its images and its model, else at its defaults."""
    dimension = fixed.GetImageDimension()
    stage.SetFixedImage(fixed)
    stage.SetMovingImage(moving)
    whole, voxel = [0] * dimension, [VOXEL_MM] * dimension
    stage.AddModelConfiguration(
        itk.ImpactModelConfiguration(str(model), dimension, 1, whole, voxel, whole, [True], False)
    )
    stage.SetDevice("cpu")
    return stage


if __name__ == "__main__":
    main()
