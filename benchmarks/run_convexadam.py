"""Registers two images with convexAdam at its defaults on the CPU; run by the Python of convexAdam's own environment.

    python run_convexadam.py FIXED MOVING -o OUT [--threads N]

Both images are resampled to an isotropic grid over the fixed one, with its smallest spacing, by convexAdam's own
functions. OUT/field.nii.gz is an ITK displacement field on that grid: fixed to moving, mm, LPS.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from convexAdam.convex_adam_MIND import convex_adam_pt
from convexAdam.convex_adam_utils import resample_img, resample_moving_to_fixed


def main() -> None:
    """Read, register, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(given.threads)
    given.output.mkdir(parents=True, exist_ok=True)
    fixed, moving = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (given.fixed, given.moving))
    fixed = resample_img(fixed, (min(fixed.GetSpacing()),) * 3)
    moving = resample_moving_to_fixed(fixed, moving)
    voxels = convex_adam_pt(fixed, moving, device=torch.device("cpu"))
    sitk.WriteImage(itk_field(voxels, fixed), str(given.output / "field.nii.gz"))


def itk_field(voxels: np.ndarray, grid: sitk.Image) -> sitk.Image:
    """Displacements in voxels, array (z, y, x, component), components z y x, as vectors in mm, x y z, LPS."""
    mm = voxels[..., ::-1] * np.array(grid.GetSpacing())
    turned = mm @ np.array(grid.GetDirection()).reshape(3, 3).T
    field = sitk.GetImageFromArray(turned.astype(np.float32), isVector=True)
    field.CopyInformation(grid)
    return field


if __name__ == "__main__":
    main()
