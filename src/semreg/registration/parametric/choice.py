"""Which of the maps that were found is applied by default, or none: what the evidence must show, and how it is said.

A map is applied where it matches clearly better than the start, all over the image, in places that did not help to find
it, and clearly better than the maps that lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semreg.registration.parametric.candidates import Search
from semreg.registration.parametric.descent import Descent, Placed
from semreg.registration.parametric.evidence import Blocks, certainty
from semreg.transforms.linear import Linear
from semreg.transforms.maps import angle_deg, linear_about, mapped, scales

SURE = 3.0
"""Standard errors of the mean over blocks that count as certain: by chance less than once in 700 times."""
LIKELY = 1.28
"""The same between two maps, of a rival or of more parameters: nine times in ten."""
RIVAL = 1 / 2
"""Share of a map's move from the start by which another one must lead elsewhere to be its rival: whichever of two that
lie nearer to each other is right, both are better than the start."""
CLEARLY_BETTER = 1.15
"""By what factor a map must match better than the start."""
BETTER = 1.05
"""By what factor a map of more parameters must match better than one of fewer."""
NOTHING = 0.01
"""A match up to this is none."""
STRONGEST_SCALE = 1.5
"""An affine map that stretches more is not taken by itself."""
DESCENTS = 6
"""About as many descents are made to compare with."""
NEAR = 1 / 2
"""Share of the reach of the dense search up to which a shift is left to it: the rest is for the deformation itself."""
NEARLY_UPRIGHT_DEG = 10.0
"""Rotation up to which that is so: descriptors do not turn with the image."""
SAME_MOVE = 0.1
"""Maps that differ by less than this share of the box's diagonal are one."""


@dataclass(frozen=True)
class Choice:
    """Decides for one pair of pictures; ``name`` says what ``before`` is."""

    search: Search
    descent: Descent
    blocks: Blocks
    before: Placed | None
    name: str
    reach_mm: float

    def of(self, ends: Sequence[Placed]) -> tuple[Placed, str] | None:
        """The map to apply and its family, best end first; None where the start stands. Says why."""
        self.search.telling.begin("choice", DESCENTS)
        if self.before is None:
            return self.richer(ends[0])
        local = self._descend(self.before, "rigid")
        best = max(ends[0], local, key=lambda end: end.match)
        everything = (*ends, local)
        found = self._applied(best, everything, self.before)
        if found is None and self._differ(best, local):
            found = self._applied(local, everything, self.before)
        return found

    def richer(self, rigid: Placed) -> tuple[Placed, str]:
        """The affine map where it is clearly better than the rigid one, else that."""
        affine = self._descend(rigid, "affine")
        sizes = scales(affine.matrix)
        plausible = max(*sizes, 1 / max(min(sizes), 1e-6)) <= STRONGEST_SCALE
        better = plausible and affine.match > BETTER * rigid.match
        if better and self._certainty(affine, "affine", rigid) >= LIKELY:
            self._say(f"An affine map matches better ({affine.match:.2f}) than a rigid one ({rigid.match:.2f}).")
            return affine, "affine"
        self._say(f"A rigid map ({rigid.match:.2f}); an affine one gains little ({affine.match:.2f}).")
        return rigid, "rigid"

    def _applied(self, rigid: Placed, ends: Sequence[Placed], before: Placed) -> tuple[Placed, str] | None:
        """A map with what an affine one adds, if all speaks for it."""
        found, family = self.richer(rigid)
        base = self._without(found, before)
        apart = max(RIVAL * self.search.move(before.matrix, rigid.matrix), SAME_MOVE * self.search.diagonal)
        rivals = [end for end in ends if self.search.move(rigid.matrix, end.matrix) > apart]
        good = self._better(found, family, base) and self._unrivalled(rigid, rivals) and self._sure(found, family, base)
        return (found, family) if good else None

    def _without(self, found: Placed, before: Placed) -> Placed:
        """What there would be without a map: the start, with the shift of the map if the dense search covers it.

        A shift is free in what follows; turning and stretching is what its regularity resists.
        """
        change = np.linalg.inv(before.matrix) @ found.matrix
        move = self.search.move(before.matrix, found.matrix)
        if move > NEAR * self.reach_mm or angle_deg(change) > NEARLY_UPRIGHT_DEG:
            return before
        centre = self.descent.corners.mean(0)
        shift = linear_about(np.eye(len(centre)), centre, mapped(change, centre[None])[0])
        shifted = self._descend(self.descent.look(Linear(before.matrix @ shift)), "translation")
        return shifted if shifted.match > before.match else before

    def _better(self, found: Placed, family: str, base: Placed) -> bool:
        """Whether a map matches clearly better than what there is without it, and say if not."""
        factor = CLEARLY_BETTER if base is self.before else BETTER
        better = found.match > max(factor * base.match, NOTHING)
        if not better:
            self._say(f"No {family} map matches clearly better {self._than(found, base)}: no alignment is applied.")
        return better

    def _sure(self, found: Placed, family: str, base: Placed) -> bool:
        """Whether it does so all over the image, and say if not."""
        sure = self._certainty(found, family, base) >= SURE
        if not sure:
            said = self._than(found, base)
            self._say(f"The {family} map does not match better {said} all over the image: no alignment is applied.")
        return sure

    def _than(self, found: Placed, base: Placed) -> str:
        shift = "" if base is self.before else " with the shift that the search covers"
        return f"({found.match:.2f}) than the {self.name}{shift} ({base.match:.2f})"

    def _unrivalled(self, best: Placed, rivals: Sequence[Placed]) -> bool:
        """Whether a map matches better than all others all over the image, and say if not."""
        shares = self.blocks.shares(best.transform)
        for rival in rivals:
            sure = certainty(shares, self.blocks.shares(rival.transform))
            self.search.evidence.append(("rival", sure))
            if sure < LIKELY:
                self._say(
                    f"A position that matches better ({best.match:.2f}) than the {self.name} is not applied: "
                    f"another one, up to {self.search.move(best.matrix, rival.matrix):.0f} mm away, matches almost as "
                    f"well ({rival.match:.2f})."
                )
                return False
        return True

    def _differ(self, first: Placed, second: Placed) -> bool:
        return self.search.move(first.matrix, second.matrix) > SAME_MOVE * self.search.diagonal

    def _certainty(self, found: Placed, family: str, base: Placed) -> float:
        held = self.blocks.held_out(found, family, self.search.config.iterations, self.search.telling.trial())
        sure = certainty(held, self.blocks.shares(base.transform))
        self.search.evidence.append((family, sure))
        return sure

    def _descend(self, start: Placed, family: str) -> Placed:
        begin = self.descent.begin(family, start.matrix)
        return self.descent.descend(begin, self.search.config.iterations, self.search.telling.trial())

    def _say(self, sentence: str) -> None:
        self.search.decisions.append(sentence)
