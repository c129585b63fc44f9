"""The data term at some of the samples. Knows nothing of regularity."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from semreg.registration.dense.data_term import TermMatch


class PartMatch:
    """A match that compares some of its samples; the regularity still acts everywhere."""

    def __init__(self, match: TermMatch, rows: Tensor | None) -> None:
        """``rows`` (Q,) of the samples of ``match``; None: all."""
        self.whole = match
        self.index = match.index
        self.curvature = match.curvature
        self.take(rows)

    def take(self, rows: Tensor | None) -> None:
        """Compare the samples ``rows`` (Q,) from now on; None: all."""
        self.rows, self._part = rows, self.whole
        if rows is None:
            return
        self._part = copy.copy(self.whole)  # picked once, not in every step
        self._part.fixed = self.whole.fixed[rows]
        if self.whole.fixed_weight is not None:
            self._part.fixed_weight = self.whole.fixed_weight[rows]
        if self.whole.change is not None:
            self._part.change = self.whole.change[rows]

    def data(self, index: Tensor) -> tuple[float, Tensor]:
        """The distance of these samples at ``index`` (D, P), and its gradient (D, P), 0 at all others."""
        if self.rows is None:
            return self.whole.data(index)
        value, slope = self._part.data(index[:, self.rows])
        gradient = torch.zeros_like(index)
        gradient[:, self.rows] = slope
        return value, gradient

    def weight(self, index: Tensor) -> Tensor:
        """How much each sample counts, (P,), of all."""
        return self.whole.weight(index)

    def redraw(self, generator: torch.Generator) -> None:
        """Draw other channels where that is asked for."""
        self.whole.redraw(generator)
        self.take(self.rows)


class DrawnMatch(PartMatch):
    """A match that compares a share of its samples, at least one; which ones is drawn with ``redraw``."""

    def __init__(self, match: TermMatch, share: float) -> None:
        """``share`` of the samples of ``match``, above 0 and up to 1; all until the first are drawn."""
        super().__init__(match, None)
        self.count = max(1, round(share * len(match.fixed)))

    def redraw(self, generator: torch.Generator) -> None:
        """Draw other samples, and other channels where that is asked for."""
        self.whole.redraw(generator)
        order = torch.randperm(len(self.whole.fixed), generator=generator)[: self.count]
        self.take(order.sort().values.to(self.whole.fixed.device))
