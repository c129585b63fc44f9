"""Sums of plane waves in space, of which textures and deformations are made. Knows nothing of images and of torch."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.floating[Any]]


class Waves(NamedTuple):
    """A sum of plane waves: ``vectors`` (W, D) in radians per mm, ``phases`` (W), ``heights`` (W)."""

    vectors: Array
    phases: Array
    heights: Array

    def times(self, factor: float) -> Waves:
        """The same waves, ``factor`` times as high."""
        return self._replace(heights=self.heights * factor)

    def at(self, points: Array) -> Array:
        """The sum at ``points`` (D, N) in mm → (N), in the precision of the points."""
        total: Array = np.zeros_like(points[0])
        for vector, phase, height in zip(
            self.vectors.tolist(), self.phases.tolist(), self.heights.tolist(), strict=True
        ):
            angle = np.full_like(total, phase)
            for along, x in zip(vector, points, strict=True):
                angle += along * x
            total += height * np.sin(angle, out=angle)
        return total


def random_waves(
    random: np.random.Generator, lengths_and_heights: list[tuple[float, float]], axes: npt.NDArray[np.bool_]
) -> Waves:
    """One plane wave for each (wavelength in mm, height), in random directions of the ``axes`` that are allowed."""
    vectors = random.normal(size=(len(lengths_and_heights), len(axes))) * axes
    lengths = np.array([length for length, _ in lengths_and_heights])
    vectors *= (2 * np.pi / lengths / np.linalg.norm(vectors, axis=1))[:, None]
    phases = random.uniform(0, 2 * np.pi, len(lengths))
    return Waves(vectors, phases, np.array([height for _, height in lengths_and_heights]))
