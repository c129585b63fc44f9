"""Registers two images densely with the ITK-style classes: coarse by intensities, then fine by features of a network.

    python examples/itk_dense.py FIXED MOVING MODEL.pt OUTPUT

Everything below the imports is what a script for itk-impact says. ``import semreg.itk.api`` puts the classes into
``itk``; without that line the script runs with itk-impact itself. MODEL is a TorchScript network with one output.
"""

import sys
from pathlib import Path

import itk
import semreg.itk.api  # noqa: F401 - puts the classes into itk

fixed_path, moving_path, model, output = map(Path, sys.argv[1:])
output.mkdir(parents=True, exist_ok=True)

ImageType = itk.Image[itk.F, 3]
fixed = itk.imread(str(fixed_path), itk.F)
moving = itk.imread(str(moving_path), itk.F)

# patch size 0: the whole image at once; then voxel size in mm, overlap, kept outputs, mixed precision
configuration = itk.ImpactModelConfiguration(str(model), 3, 1, [0, 0, 0], [1.5, 1.5, 1.5], [0, 0, 0], [True], False)

coarse = itk.ImpactCoarseRegistration[ImageType, ImageType].New()
coarse.SetFixedImage(fixed)
coarse.SetMovingImage(moving)
coarse.SetGridSpacing(4)
coarse.SetDisplacementHalfWidth(5)
coarse.SetDevice("cpu")
coarse.Update()

fine = itk.ImpactFineRegistration[ImageType, ImageType].New()
fine.SetFixedImage(fixed)
fine.SetMovingImage(moving)
fine.SetInitialDisplacementField(coarse.GetDisplacementField())
fine.AddModelConfiguration(configuration)
fine.SetDistance(["L2"])
fine.SetNumberOfIterations(100)
fine.SetLearningRate(0.1)
fine.SetRegularizationWeight(1.0)
fine.SetDevice("cpu")
fine.Update()

itk.imwrite(fine.GetDisplacementField(), str(output / "field.nii.gz"))
itk.imwrite(fine.GetWarpedMovingImage(), str(output / "moved.nii.gz"))
itk.transformwrite([fine.GetDisplacementFieldTransform()], str(output / "transform.h5"))
values = list(fine.GetMetricValuesPerIteration())
print(f"metric: {values[0]:.5g} at first, {values[-1]:.5g} at the end")
print(f"wrote field.nii.gz, moved.nii.gz and transform.h5 to {output}")
