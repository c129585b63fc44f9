"""Registers two images with antspyx at its defaults; run by the Python of an environment of its own.

    python run_ants.py FIXED MOVING -o OUT

``ants.registration`` with ``type_of_transform="SyN"``: centres of mass, affine, SyN, mutual information.
OUT/field.nii.gz is the composed displacement field on the fixed grid: fixed to moving, mm, LPS. The number of threads
is ITK's, from the environment.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ants


def main() -> None:
    """Read, register, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    fixed, moving = ants.image_read(str(given.fixed)), ants.image_read(str(given.moving))
    prefix = str(given.output / "ants_")
    found = ants.registration(fixed, moving, type_of_transform="SyN", outprefix=prefix)
    composed = ants.apply_transforms(fixed, moving, found["fwdtransforms"], compose=prefix)
    Path(composed).replace(given.output / "field.nii.gz")


if __name__ == "__main__":
    main()
