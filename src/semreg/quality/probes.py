"""Would another shift, or a mirrored moving image, match better? The match of all shifts at once. Knows no check.

The match is that of the alignment (``registration.parametric.overlap``): 0 for unrelated images, up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len

from semreg.core.fields import Field, Layer
from semreg.quality.coarse_view import Shown, features_of
from semreg.registration.parametric.overlap import SMALL, Seen, unrelated
from semreg.registration.parametric.shifts import IMPOSSIBLE, match_shifts, spectra

SIDE = {2: 64, 3: 28}
"""Voxels a side of the probes, if the fixed image were a cube."""
LEAST_OVERLAP = 0.3
"""Share of the smaller content that both must show; as ``align.minimum_overlap``."""


@dataclass(frozen=True)
class Shifted:
    """The match at rest and at the best of all shifts up to half the image."""

    rest: float
    best: float
    shift_mm: float


@dataclass(frozen=True)
class Mirrored:
    """The best match of the moving image as it is, and of the mirrored one along the tensor axis ``axis``."""

    straight: float
    mirrored: float
    axis: int


def seen(layer: Layer) -> Seen:
    """A layer as the match takes it."""
    share = torch.ones_like(layer.features.data[0]) if layer.weight is None else layer.weight.data[0]
    return Seen(layer.features.data, share, layer.grid)


def try_shifts(fixed: Seen, moving: Seen) -> Shifted | None:
    """The match of every shift up to half the image, both on one grid; None where nothing can be compared."""
    shape = tuple(int(next_fast_len(n + n // 2, real=True)) for n in fixed.grid.shape)
    scale = unrelated(fixed, moving)
    most = min(float(fixed.share.sum()), float(moving.share.sum()))
    if scale <= 0 or most <= SMALL:
        return None
    matches, _ = match_shifts(spectra(fixed, shape), scale, moving, shape, (LEAST_OVERLAP * most, most))
    for axis, n in enumerate(fixed.grid.shape):  # further than half the image both ends of an axis meet
        matches.narrow(axis, n // 2 + 1, shape[axis] - 2 * (n // 2) - 1).fill_(IMPOSSIBLE)
    number = int(matches.argmax())
    where = np.unravel_index(number, shape)
    signed = [int(k) if k <= n // 2 else int(k) - n for k, n in zip(where, shape, strict=True)]
    length = math.hypot(*[k * s for k, s in zip(signed, fixed.grid.spacing, strict=True)])
    return Shifted(float(matches.flatten()[0]), float(matches.flatten()[number]), length)


def try_mirrors(fixed: Seen, moving: Shown, ways: Sequence[Field]) -> Mirrored | None:
    """The best match of the moving image read through each of ``ways`` and any shift, as it is and mirrored.

    The ways are without deformation: that has been fitted to the image as it is, and to no mirrored one. None where
    nothing can be compared.
    """
    straight = _best(fixed, moving, ways)
    if straight is None:
        return None
    axes = [axis for axis, n in enumerate(moving.image.grid.shape) if n > 1]
    found = {axis: _best(fixed, moving.mirrored(axis), ways) or 0.0 for axis in axes}
    axis = max(found, key=lambda a: found[a])
    return Mirrored(straight, found[axis], axis)


def _best(fixed: Seen, moving: Shown, ways: Sequence[Field]) -> float | None:
    """The best match of one image over all ways and shifts, None where nothing can be compared."""
    shown = [each for each in (moving.through(way) for way in ways) if bool(each.known.data.any())]
    tried = [try_shifts(fixed, seen(features_of(each))) for each in shown]
    return max((shifted.best for shifted in tried if shifted is not None), default=None)
