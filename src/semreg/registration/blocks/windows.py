"""Local correlation in a part of two images, as in the whole: windows of all samples, counted where a part has them.

The derivative is written out: what autograd would keep takes several times the memory and the time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from semreg.core.sampling import window_sums
from semreg.core.shapes import Channels, Values
from semreg.core.sums import total
from semreg.distances.correlation import FLAT
from semreg.distances.samples import SMALL

POWER = {"lncc": 1, "lncc_squared": 2}
"""Distances that are one minus a power of the correlation in windows."""
LEAST = FLAT + SMALL**2
"""The variance that counts as none, of images whose variance is 1."""


def correlated(
    images: tuple[Channels, Channels], weight: Values, core: Values, power: int, radius: int
) -> tuple[float, Float[Tensor, "c *s"]]:
    """Σ core · (1 − cᵖ), with the correlation c in the window around a sample, and its derivative in the second image.

    Avants et al., Medical Image Analysis 2008. The mean over the channels of a sample counts.

    Args:
        images: fixed and moving (C, *S), about of mean 0 and variance 1 in the whole image.
        weight: how much each sample counts within windows, (*S).
        core: how much each window counts, (*S).
        power: p, 1 or 2.
        radius: half width of the windows in samples.

    Returns:
        The sum, and the derivative (C, *S).
    """
    (f, m), w = images, weight[None]
    share = 1 / window_sums(w, radius).clamp(min=SMALL)

    def mean(x: Tensor) -> Tensor:
        return window_sums(x * w, radius).mul_(share)

    mean_f, mean_m = mean(f), mean(m)
    covariance = mean(f * m).sub_(mean_f * mean_m).add_(LEAST)
    near = mean(f.square()).sub_(mean_f.square()).clamp_(min=0).add_(LEAST)
    far = mean(m.square()).sub_(mean_m.square()).clamp_(min=0).add_(LEAST)
    root = (near * far).sqrt_()
    found = covariance / root
    away = 1 - found.pow(power).mean(0)
    # of cᵖ in the covariance, and half of that in the variance, each divided by the weight of the window
    counted = share * (core / len(f))
    in_covariance = (power * found.pow(power - 1) / root).mul_(counted)
    in_variance = (power * found.pow(power) / (2 * far)).mul_(counted)

    def spread(x: Tensor) -> Tensor:
        return window_sums(x, radius)

    pull = f * spread(in_covariance)
    pull -= spread(in_covariance * mean_f)
    pull -= m * (2 * spread(in_variance))
    pull += 2 * spread(in_variance * mean_m)
    return total(away * core), torch.neg(pull.mul_(w))
