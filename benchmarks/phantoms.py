"""Writes the phantom pair of a size: CT-like and MR-like on one isotropic grid, with landmarks, and a list of it.

    python phantoms.py SIZE FOLDER

FOLDER gets fixed.nii.gz, moving.nii.gz, fixed_landmarks.csv and moving_landmarks.csv (x,y,z in mm, LPS), and pairs.toml
for ``benchmarks/run``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tools import OUT

DISPLACEMENT_MM = 11.0
"""The largest displacement of the pair."""
LIST = """\
[[pair]]
name = "phantom_{size}"
what = "CT-like and MR-like phantom of one body"
fixed = "fixed.nii.gz"
moving = "moving.nii.gz"
fixed_landmarks = ["fixed_landmarks.csv"]
moving_landmarks = ["moving_landmarks.csv"]
"""


def phantom_pair(size: int) -> Path:
    """The folder of the pair of ``size`` voxels an axis, made in a process of its own, whose memory ends there."""
    folder = OUT / f"phantom-{size}"
    subprocess.run([sys.executable, Path(__file__).resolve(), str(size), folder], check=True)
    return folder


def main() -> None:
    """Make the pair and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", type=int)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()

    import numpy as np

    from semreg import write_image
    from semreg.phantom import make_pair

    given.folder.mkdir(parents=True, exist_ok=True)
    pair = make_pair(size=given.size, frames="isotropic", displacement_mm=DISPLACEMENT_MM)
    write_image(pair.fixed, given.folder / "fixed.nii.gz", "int16")
    write_image(pair.moving, given.folder / "moving.nii.gz", "int16")
    for name, points in (("fixed", pair.fixed_points), ("moving", pair.moving_points)):
        path = given.folder / f"{name}_landmarks.csv"
        np.savetxt(path, points.numpy(), delimiter=",", header="x,y,z", comments="", fmt="%.6f")
    (given.folder / "pairs.toml").write_text(LIST.format(size=given.size), encoding="utf-8")


if __name__ == "__main__":
    main()
