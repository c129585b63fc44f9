"""Adam: steps of about one length for each control point by itself, whatever the size of its gradient.

Method: Kingma, Ba: Adam, ICLR 2015; for the refinement of displacements Siebert, Großbröhmer, Hansen, Heinrich:
ConvexAdam, 2024.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from semreg.config import RefineConfig
from semreg.registration.dense.objective import Evaluation, Objective

RISE = 1.25
"""What the best objective may be multiplied by before a step is taken back."""


def adam(
    problem: Objective, first: Evaluation, unit: float, config: RefineConfig, report: Callable[[int, Evaluation], None]
) -> tuple[Evaluation, list[float], int]:
    """All iterations from ``first``: where they ended, the objective at the start and after each step, and which it is.

    The end is the best point that was seen since the objective changed last; with samples or channels that are drawn
    for each step, whose objectives cannot be compared, it is the last one. A step after which the objective is clearly
    above the best is taken back: the rate is halved, and the means begin again at the best point. ``unit`` is what the
    regularity is relative to.
    """
    rate, moments = problem.longest_step(config), _Moments(first.coefficients, config)
    best = here = first
    returned = 0
    objective = []
    for iteration in range(1, config.steps + 1):
        renew = config.update_every > 0 and iteration > 1 and (iteration - 1) % config.update_every == 0
        if renew:
            problem.renew(here.coefficients)
            moments = _Moments(first.coefficients, config)  # the objective is another one now
        if problem.redraws:
            problem.redraw()
        if renew or problem.redraws:
            best = here = problem.evaluate(here.coefficients, unit)
            returned = iteration - 1
        objective.append(here.value)
        report(iteration, here)
        here = problem.evaluate(here.coefficients + rate * moments.direction(here.gradient / unit), unit)
        if problem.redraws or here.value <= best.value:
            best, returned = here, iteration
        elif problem.bounded and here.value > RISE * best.value:
            here, rate, moments = best, rate / 2, _Moments(first.coefficients, config)
    return best, [*objective, here.value], returned


class _Moments:
    """Running means of the gradient and of its square, corrected for their start at 0."""

    def __init__(self, like: Tensor, config: RefineConfig) -> None:
        """Nothing seen yet."""
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)
        self.config, self.count = config, 0

    def direction(self, gradient: Tensor) -> Tensor:
        """The step for a rate of 1: about −1, 0 or 1 for each coefficient."""
        beta1, beta2 = self.config.beta1, self.config.beta2
        self.count += 1
        self.mean.lerp_(gradient, 1 - beta1)
        self.square.lerp_(gradient.square(), 1 - beta2)
        root = (self.square / (1 - beta2**self.count)).sqrt_().add_(self.config.epsilon)
        return self.mean.neg().div_(1 - beta1**self.count).div_(root)
