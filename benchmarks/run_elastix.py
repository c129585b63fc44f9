"""Registers two images with itk-elastix at its defaults; run by the Python of an environment of its own.

    python run_elastix.py FIXED MOVING -o OUT

``itk.elastix_registration_method`` without parameters: translation, affine and B-spline, mutual information, 2048
random samples an iteration. OUT/field.mha is the displacement field on the fixed grid: fixed to moving, mm, LPS. The
number of threads is ITK's, from the environment.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import itk


def main() -> None:
    """Read, register, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    fixed, moving = (itk.imread(str(path), itk.F) for path in (given.fixed, given.moving))
    _, parameters = itk.elastix_registration_method(fixed, moving)
    field = itk.transformix_deformation_field(moving, parameters)
    itk.imwrite(field, str(given.output / "field.mha"))


if __name__ == "__main__":
    main()
