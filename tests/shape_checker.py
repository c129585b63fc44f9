"""A registration while all shapes that signatures promise are checked: a script for ``project/test_shapes.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import install_import_hook

ROOMS = ("core", "distances", "features", "nn", "registration", "transforms")
CHECKED: list[str] = []
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do for a float


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its types checked; as it is where one is a protocol that says nothing at run time."""
    try:
        found = checked(function)
    except BeartypeDecorHintException:
        return function
    CHECKED.append(function.__qualname__)
    return found


def main() -> None:
    """Align, deform with a search and a refinement in both directions, invert, and compare as a loss."""
    install_import_hook([f"semreg.{room}" for room in ROOMS], "shape_checker.check")
    import torch

    import semreg
    from semreg.distances import DISTANCES
    from semreg.nn import ImpactLoss
    from semreg.phantom import make_pair

    dimension = int(sys.argv[1])
    pair = make_pair(size=24 if dimension == 2 else 14, dimension=dimension, landmarks=20)
    align = "affine" if dimension == 2 else "none"  # of many calls, each of which is checked
    config = semreg.configure("refine.iterations=2", f"align.transform={align}", "align.rotation_deg=0")
    result = semreg.register(pair.fixed, pair.moving, config=config, inverse=True)
    result.field.jacobian(pair.fixed_points.T.double().numpy())
    samples = torch.rand(30, 4), torch.rand(30, 4)
    for distance in DISTANCES.values():
        distance(*samples, torch.rand(30), (5, 6))
        distance.curvature(samples[0], None, (5, 6))
        near, far = (distance.embed(rows.T.reshape(4, 5, 6), None) for rows in samples)
        distance.cost(near, far, torch.empty_like(near))
        if distance.slope is not None:
            distance.slope(*samples, torch.rand(30))
    ImpactLoss("mind", dimension=2)(torch.rand(2, 1, 12, 13), torch.rand(2, 1, 12, 13), torch.ones(2, 1, 12, 13))
    sys.stdout.write(f"{len(CHECKED)}\n")


if __name__ == "__main__":
    sys.modules["shape_checker"] = sys.modules["__main__"]
    main()
