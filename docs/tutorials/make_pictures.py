"""Makes the pictures of the tutorials, from phantoms alone: python docs/tutorials/make_pictures.py."""

# ruff: noqa: INP001 - a script, no package

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import semreg
from semreg.phantom import PhantomPair, make_brains, make_pair, make_slides

PICTURES = Path(__file__).parent / "pictures"
DPI = 110
HIGHEST = 640


def main() -> None:
    """The picture before_after of each pair."""
    angle = np.deg2rad(15)
    table = np.eye(4)
    table[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    table[:3, 3] = [140, -50, 30]
    draw("brain", make_brains(size=72))
    draw("ct_mr", make_pair(size=56).moved(table))
    draw("two_d", make_slides(size=256))


def draw(name: str, pair: PhantomPair) -> None:
    """Register the pair and keep the picture of before and after."""
    result = semreg.register(pair.fixed, pair.moving)
    case = semreg.report.Case.of(result, pair.fixed, pair.moving)
    with tempfile.TemporaryDirectory() as folder:
        semreg.write_figures(case, folder, dpi=DPI)
        PICTURES.mkdir(exist_ok=True)
        with Image.open(Path(folder) / "before_after.png") as image:
            keep(image, PICTURES / f"{name}.png")


def keep(image: Image.Image, path: Path) -> None:
    """Write a picture small: at most ``HIGHEST`` pixels high, in 128 colours."""
    image.thumbnail((image.width, HIGHEST), Image.Resampling.LANCZOS)
    image.convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
