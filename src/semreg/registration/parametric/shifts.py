"""The best translation of all, for one rotation: the match of every shift at once, by Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from semreg.core.geometry import Grid, Matrix
from semreg.registration.parametric.overlap import (
    SMALL,
    Describe,
    Picture,
    Seen,
    describe_picture,
    describe_through,
    match,
    turned_grid,
    unrelated,
)
from semreg.transforms.linear import Linear
from semreg.transforms.maps import linear_about

NEIGHBOURHOOD = 2
"""Voxels around a peak that belong to it."""
IMPOSSIBLE = -9.0
"""The match where too little is compared."""


@dataclass(frozen=True)
class Candidate:
    """A map that may be right."""

    matrix: Matrix
    match: float
    overlap: float
    """Share of the content that both images show, of the image that has less."""


class ShiftSearch:
    """Looks for the shifts at which two pictures match, the features of the fixed one transformed once."""

    def __init__(self, fixed: Picture, moving: Picture, describe: Describe, minimum_overlap: float) -> None:
        """Describe the fixed picture; both are on cubic voxels of one size."""
        self.fixed = describe_picture(fixed, describe)
        self.spacing = min(self.fixed.grid.spacing)
        self.moving, self.describe, self.minimum_overlap = moving, describe, minimum_overlap
        self.centre_moving = moving.image.grid.corners_xyz().mean(0)
        self.most = min(float(fixed.content.data.sum()), float(moving.content.data.sum()))
        self._transformed: tuple[tuple[int, ...], list[Tensor]] | None = None

    def candidates(self, turn: Matrix, count: int = 2) -> list[Candidate]:
        """The best shifts after a rotation (D, D), fixed → moving, best first; none where too little overlaps."""
        grid = self._grid(turn)
        forth = linear_about(turn, self.centre_moving, self.centre_moving)
        seen = describe_through(self.moving, Linear(forth), grid, self.describe)
        matches, overlap = self._all_shifts(seen)
        found = []
        for _ in range(count):
            number = int(matches.argmax())
            value = float(matches.flatten()[number])
            if value <= IMPOSSIBLE:
                break
            where = np.unravel_index(number, matches.shape)
            # beyond what a shift forward can reach lie the shifts backward
            shift = [
                int(k) - n if k >= size else int(k)
                for k, n, size in zip(where, matches.shape, seen.grid.shape, strict=True)
            ]
            start = seen.grid.index_to_point() @ np.array([*shift, 1.0])
            origin = self.fixed.grid.index_to_point() @ np.array([*[0.0] * len(shift), 1.0])
            move = np.eye(len(turn) + 1)
            move[:-1, -1] = (start - origin)[:-1]
            found.append(Candidate(forth @ move, value, float(overlap[where]) / self.most))
            _clear(matches, where)
        return found

    def best(self, turns: Sequence[Matrix], told: Callable[[], None]) -> list[list[Candidate]]:
        """The best shift after each of the rotations, none where too little overlaps; ``told`` after each.

        Those whose spectra are of one shape are tried together: those of the fixed picture are kept for one shape only,
        as they are tens of megabytes, and rotations have dozens of shapes.
        """
        found: list[list[Candidate]] = [[] for _ in turns]
        for number in sorted(range(len(turns)), key=lambda k: self._shape(self._grid(turns[k]))):
            found[number] = self.candidates(turns[number], 1)
            told()
        return found

    def _grid(self, turn: Matrix) -> Grid:
        """Where the moving picture is read after a rotation."""
        back = linear_about(turn.T, self.centre_moving, self.centre_moving)
        return turned_grid(self.moving, back, self.spacing, self.fixed.grid)

    def _shape(self, grid: Grid) -> tuple[int, ...]:
        """Of the spectra of all shifts against a picture on ``grid``."""
        return tuple(
            int(next_fast_len(a + b - 1, real=True)) for a, b in zip(self.fixed.grid.shape, grid.shape, strict=True)
        )

    def _all_shifts(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """The match and Σ w for every shift (*T), circular."""
        shape = self._shape(seen.grid)
        if self._transformed is None or self._transformed[0] != shape:
            self._transformed = shape, spectra(self.fixed, shape)
        least = self.minimum_overlap * self.most
        return match_shifts(self._transformed[1], unrelated(self.fixed, seen), seen, shape, (least, self.most))


def spectra(fixed: Seen, shape: tuple[int, ...]) -> list[Tensor]:
    """Σ w, Σ w f² and Σ w f of the fixed features as ``match_shifts`` takes them, transformed."""
    parts = [fixed.share, fixed.features.square().sum(0) * fixed.share, fixed.features * fixed.share]
    return [_forth(part, shape).conj() for part in parts]


def match_shifts(
    fixed: list[Tensor], scale: float, seen: Seen, shape: tuple[int, ...], overlaps: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """The match and Σ w for every shift (*T), circular; IMPOSSIBLE where the least overlap is not reached.

    ``fixed``: its ``spectra``; ``scale``: the distance of unrelated features; ``overlaps``: the least and the largest.
    """
    share, square, features = fixed
    own = _forth(seen.share, shape)
    overlap = _back(share * own, shape).clamp(min=0)
    squares = square * own + share * _forth(seen.features.square().sum(0) * seen.share, shape)
    product = sum(
        part * _forth(channel * seen.share, shape) for part, channel in zip(features, seen.features, strict=True)
    )
    distance = _back(squares - 2 * product, shape)
    won = scale * overlap - distance
    # without a scale there is nothing that one shift could match better by than another
    matches = match(won, overlap, overlaps[1], scale) if scale > 0 else torch.zeros_like(overlap)
    return torch.where(overlap >= max(overlaps[0], SMALL), matches, IMPOSSIBLE), overlap


def _forth(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    result: Tensor = torch.fft.rfftn(x, shape, dim=tuple(range(-len(shape), 0)))
    return result


def _back(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    result: Tensor = torch.fft.irfftn(x, shape, dim=tuple(range(-len(shape), 0)))
    return result


def _clear(matches: Tensor, where: tuple[np.intp, ...]) -> None:
    """Take a peak out, so that the next one is another."""
    near = [
        torch.arange(int(k) - NEIGHBOURHOOD, int(k) + NEIGHBOURHOOD + 1, device=matches.device) % n
        for k, n in zip(where, matches.shape, strict=True)
    ]
    matches[torch.meshgrid(*near, indexing="ij")] = IMPOSSIBLE
