"""A registration while all shapes that signatures promise are checked: a script for ``project/test_shapes.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from semreg.core.fields import Volume

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
    """Align, deform with a search and a refinement in both directions, invert, compare as a loss, and run networks."""
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
    extract(dimension, pair.moving)
    sys.stdout.write(f"{len(CHECKED)}\n")


def extract(dimension: int, image: Volume) -> None:
    """Networks that are measured, tiled, blended, differentiated, seen slice by slice, compared, and fewer channels."""
    import torch

    from semreg.core.fields import Volume
    from semreg.features.contract import ModelSpec, Normalisation
    from semreg.features.extract import Extractor, segment
    from semreg.features.networks import as_network
    from semreg.features.reduce import fit_pca, fit_standard, select, subset, unit
    from small_networks import Small

    spec = ModelSpec(dimension=dimension, normalisation=Normalisation(kind="percentiles"))
    weight = Volume((image.data > image.data.mean()).float(), image.grid)
    for each in (spec, replace(spec, patch=(8,), overlap=0.5), replace(spec, axes="LIA" if dimension == 3 else "AL")):
        network = as_network(Small(dimension), each)
        layers = Extractor(network).layers(image, weight, pooled_mm=6.0)
    for each in (spec, replace(spec, spacing_mm=(4.0,)), replace(spec, patch=(8,))):
        segment(image, as_network(Small(dimension), each).keep((2,)))
    Extractor(as_network(Small(2), replace(spec, dimension=2, slices="all"))).layers(image)
    moved = Volume(image.data.clone().requires_grad_(), image.grid)
    torch.cat([each.features.data.flatten() for each in Extractor(network).layers(moved)]).sum().backward()
    layer = layers[0]
    for found in (fit_pca(layer, 2), fit_standard(layer)):
        found.apply(layer)
    select(unit(layer), subset(3, 2, torch.Generator()))


if __name__ == "__main__":
    sys.modules["shape_checker"] = sys.modules["__main__"]
    main()
