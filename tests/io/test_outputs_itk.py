"""Promise of the files: ITK itself reads the transform and gets the warped image."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from blobs import blobs
from conftest import grid_at, rotation
from semreg.cli import main
from semreg.io.files import write_image

FIXED = grid_at((3.0, -7.0, 11.0), (22, 20, 16), (1.7, 1.9, 2.6), rotation(3))
MOVING = grid_at((4.0, -6.0, 12.0), (24, 19, 21), (1.6, 2.1, 2.2), rotation(3, -21.0))
QUICK = ("--align", "none", "--no-report", "--set", "refine.iterations=3")


@pytest.mark.parametrize("initial", [False, True])
def test_itk_resamples_to_the_warped_image(tmp_path, initial):
    """ITK's ResampleImageFilter with transform.h5 gives warped.nii.gz within interpolation rounding.

    With an affine start the file holds a composite transform, and does too.
    """
    import itk

    fixed, moving, out = tmp_path / "fixed.nii.gz", tmp_path / "moving.nrrd", tmp_path / "out"
    write_image(blobs(FIXED), fixed)
    write_image(blobs(MOVING, (2.0, -1.5, 1.0)), moving)
    arguments = ["register", str(fixed), str(moving), "-o", str(out), "-q", "--dtype", "float32", *QUICK]
    if initial:
        turn = sitk.Euler3DTransform((3.0, -7.0, 11.0), 0.03, -0.05, 0.04, (2.0, -1.0, 0.5))
        sitk.WriteTransform(turn, str(tmp_path / "initial.tfm"))
        arguments += ["--initial", str(tmp_path / "initial.tfm")]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert not end.value.code
    transforms = itk.transformread(str(out / "transform.h5"))
    transform = itk.CompositeTransform[itk.D, 3].New()
    for part in transforms:
        if isinstance(part, itk.CompositeTransform[itk.D, 3]):
            transform = part
            break
        transform.AddTransform(part)
    image = itk.imread(str(moving), itk.F)
    warped = itk.imread(str(out / "warped.nii.gz"), itk.F)
    kind = type(image)
    resample = itk.ResampleImageFilter[kind, kind].New(
        Input=image, Transform=transform, UseReferenceImage=True, ReferenceImage=warped, DefaultPixelValue=0.0
    )
    resample.Update()
    expected = itk.array_from_image(warped)
    difference = np.abs(itk.array_from_image(resample.GetOutput()) - expected)
    assert np.median(difference) < 0.05
    assert np.mean(difference > 0.5) < 0.01  # the outermost voxels, where rounding decides what is inside
    assert expected.max() > 500
    assert float(difference[expected > 100].max()) < 0.5
