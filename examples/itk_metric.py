"""Aligns two images rigidly with ITK's own registration, driven by the features of a network.

    python examples/itk_metric.py FIXED MOVING MODEL.pt OUTPUT

Everything below the imports is what a script for itk-impact says. ``import semreg.itk.api`` puts the classes into
``itk``; without that line the script runs with itk-impact itself. Needs the package semreg-itkv4 (``semreg doctor``
says whether it is there). MODEL is a TorchScript network with one output.
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
configuration = itk.ImpactModelConfiguration(str(model), 3, 1, [0, 0, 0], [2.0, 2.0, 2.0], [0, 0, 0], [True], False)

# what the network sees of the fixed image: an itk.VectorImage, one component a channel
InterpolatorType = itk.BSplineInterpolateImageFunction[ImageType, itk.D, itk.F]
features = itk.ImageToFeaturesMap[ImageType, InterpolatorType].New()
features.SetModelConfiguration(configuration)
features.SetDevice("cpu")
features.AddInput(fixed)
features.Update()
channels = features.GetOutput(0).GetNumberOfComponentsPerPixel()
itk.imwrite(features.GetOutput(0), str(output / "features.mha"))

metric = itk.ImpactImageToImageMetricv4[ImageType, ImageType].New()
metric.AddModelConfiguration(configuration)
metric.SetDistance(["NCC"])
metric.SetLayersWeight([1.0])
metric.SetSubsetFeatures([channels])
metric.SetPCA([0])
metric.SetMode("Static")
metric.SetDevice("cpu")

# the centre of rotation: the middle of the fixed image, a point in mm
size = fixed.GetLargestPossibleRegion().GetSize()
transform = itk.Euler3DTransform[itk.D].New()
transform.SetIdentity()
transform.SetCenter(fixed.TransformIndexToPhysicalPoint([size[axis] // 2 for axis in range(3)]))

optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New()
# these scales make a step of 1 move voxels by about 1 mm, be it an angle or a shift that changes
scales = itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New()
scales.SetMetric(metric)
optimizer.SetScalesEstimator(scales)
optimizer.SetLearningRate(1.0)
optimizer.SetRelaxationFactor(0.8)
optimizer.SetMinimumStepLength(0.01)
optimizer.SetGradientMagnitudeTolerance(1e-8)
optimizer.SetNumberOfIterations(60)

registration = itk.ImageRegistrationMethodv4[ImageType, ImageType].New()
registration.SetFixedImage(fixed)
registration.SetMovingImage(moving)
registration.SetMetric(metric)
registration.SetOptimizer(optimizer)
registration.SetInitialTransform(transform)
registration.SetNumberOfLevels(2)
registration.SetShrinkFactorsPerLevel([2, 1])
registration.SetSmoothingSigmasPerLevel([1, 0])
registration.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()  # in voxels
registration.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_RANDOM)
registration.SetMetricSamplingPercentage(0.1)
registration.MetricSamplingReinitializeSeed(0)
registration.Update()
found = registration.GetTransform()

moved = itk.resample_image_filter(moving, transform=found, use_reference_image=True, reference_image=fixed)
itk.transformwrite([found], str(output / "transform.h5"))
itk.imwrite(moved, str(output / "moved.nii.gz"))
print("angles in rad, shifts in mm:", [round(found.GetParameters().GetElement(i), 4) for i in range(6)])
print(f"metric: {optimizer.GetValue():.5g} after {optimizer.GetCurrentIteration()} iterations")
print(f"wrote features.mha, transform.h5 and moved.nii.gz to {output}")
