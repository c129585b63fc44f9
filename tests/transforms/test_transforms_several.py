"""Promises of files that hold several transforms: none is taken in silence, and each can be asked for."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

import itk
from semreg.errors import GeometryError
from semreg.transforms import read_chain, read_transform

SHIFT, SCALES, TURN = (1.5, -2.0, 7.0), (1.1, 0.9, 1.3), (0.1, -0.2, 0.3)
POINT = np.array([[3.0], [-4.0], [5.5]])


def three():
    """A translation, an affine map and a rotation, as itk has them."""
    shift = itk.TranslationTransform[itk.D, 3].New()
    shift.SetOffset(SHIFT)
    affine = itk.AffineTransform[itk.D, 3].New()
    affine.Scale(SCALES)
    turn = itk.Euler3DTransform[itk.D].New()
    turn.SetRotation(*TURN)
    return [shift, affine, turn]


def moved(transform):
    """The oracle: where itk's transform brings the point, (3, 1)."""
    return np.array([list(transform.TransformPoint(POINT[:, 0].tolist()))]).T


@pytest.fixture(params=["three.tfm", "three.txt", "three.h5", "three.mat"])
def several(request, tmp_path):
    """One file with the three, side by side."""
    path = tmp_path / request.param
    itk.transformwrite(three(), str(path))
    return path


def test_several_transforms_are_refused_with_their_number(several):
    """Which one is meant, and in which order they are to be joined, is not said by such a file: no guess."""
    with pytest.raises(GeometryError, match=r"one transform or a composite, got 3 transforms .*#1 to .*#3"):
        read_transform(several)


def test_each_of_several_is_taken_by_its_number(several):
    """The number behind the name counts from 1, and the parts can be joined in any order."""
    ones = three()
    for number, transform in enumerate(ones, start=1):
        assert read_chain([f"{several}#{number}"]).map(POINT) == pytest.approx(moved(transform), abs=1e-9)
    joined = read_chain([f"{several}#3", f"{several}#1"]).map(POINT)
    first = ones[2].TransformPoint(POINT[:, 0].tolist())
    assert joined[:, 0] == pytest.approx(np.array(ones[0].TransformPoint(first)), abs=1e-9)


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_that_there_is_not_is_refused(several, number):
    """The sentence says how many there are."""
    with pytest.raises(GeometryError, match=f"from 1 to 3, got {number}"):
        read_transform(f"{several}#{number}")


@pytest.mark.parametrize("name", ["parts.h5", "parts.tfm"])
def test_a_composite_is_one_transform(name, tmp_path):
    """It says itself how its parts follow each other: read as before, with #1 too."""
    composite = sitk.CompositeTransform([sitk.TranslationTransform(3, SHIFT), sitk.ScaleTransform(3, SCALES)])
    sitk.WriteTransform(composite, str(tmp_path / name))
    expected = np.array([composite.TransformPoint(POINT[:, 0].tolist())]).T
    for path in (tmp_path / name, f"{tmp_path / name}#1"):
        assert read_chain([path]).map(POINT) == pytest.approx(expected, abs=1e-9)


def test_a_file_may_be_called_so(tmp_path):
    """A file whose own name ends in a number sign and a number is that file."""
    sitk.WriteTransform(sitk.TranslationTransform(3, SHIFT), str(tmp_path / "one.tfm"))
    (tmp_path / "one.tfm").rename(tmp_path / "scan#2")
    assert read_transform(tmp_path / "scan#2").TransformPoint((0.0, 0.0, 0.0)) == pytest.approx(SHIFT)
    with pytest.raises(GeometryError, match="no such file"):
        read_transform(tmp_path / "gone.tfm#2")
