"""Registers two images with greedy (PyPI picsl_greedy); run by the Python of an environment of its own.

    python run_greedy.py FIXED MOVING -o OUT [--threads N]

Centres of the images, an affine map, then a diffeomorphic deformation; both by WNCC with a radius of 2 voxels and 100,
50 and 10 iterations from the coarsest level to the finest. OUT/field.nii.gz is the composed displacement field on the
fixed grid: fixed to moving, mm, LPS.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import SimpleITK as sitk
from picsl_greedy import Greedy2D, Greedy3D


def main() -> None:
    """Read, register, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    images = {"fixed": sitk.ReadImage(str(given.fixed)), "moving": sitk.ReadImage(str(given.moving))}
    dimension = images["fixed"].GetDimension()
    greedy = {2: Greedy2D, 3: Greedy3D}[dimension]()
    match = f"-i fixed moving -m WNCC {'x'.join('2' * dimension)} -n 100x50x10 -threads {given.threads}"
    affine, warp = given.output / "affine.mat", given.output / "warp.nii.gz"
    greedy.execute(f"{match} -a -dof 12 -ia-image-centers -o {affine}", **images)
    greedy.execute(f"{match} -it {affine} -o {warp}", **images)
    composed = given.output / "field.nii.gz"
    greedy.execute(f"-rf fixed -r {warp} {affine} -rc {composed} -threads {given.threads}", **images)


if __name__ == "__main__":
    main()
