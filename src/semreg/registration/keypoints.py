"""Keypoints: points that correspond, found by both images alone in the working frame, in mm of the images."""

from __future__ import annotations

from dataclasses import dataclass

from semreg.config import RegistrationConfig
from semreg.core.sampling import transform_index
from semreg.registration.dense.keypoints import blocks, matches
from semreg.registration.guidance import KeypointReport, KnownPoints
from semreg.registration.matching import Images
from semreg.transforms.base import Transform


@dataclass(frozen=True)
class Keypoints:
    """What was found."""

    looked: int
    """Distinctive points of the fixed image."""
    points: KnownPoints
    """Those whose partners the way back confirms."""

    @property
    def count(self) -> int:
        """How many these are."""
        return len(self.points.sd_mm)

    def report(self, result: Transform) -> KeypointReport:
        """How well a map of points, fixed → moving, obeys them."""
        fixed = self.points.fixed
        residual = self.points.residual(fixed, result.map(fixed)) if self.count else None
        return KeypointReport(looked=self.looked, kept=self.count, residual=residual)


def find_keypoints(images: Images, config: RegistrationConfig) -> Keypoints:
    """Find them by MIND-SSC, whatever the models are; ``config`` leaves nothing open.

    What is found in the moving image as it was read through a start is carried to where it lies.
    """
    reach, frame = config.keypoints.reach_mm or 0.0, images.frame
    block = blocks(min(frame.fixed.spacing), reach)
    (image, _), (near, far) = images.described("intensity", block), images.described("mind", block)
    single = [n == m == 1 for n, m in zip(images.fixed[0].grid.shape, images.moving[0].grid.shape, strict=True)]
    if any(single):  # working voxels repeat a slice along its thickness, where it would have no distinctive point
        whole = tuple(n if each else 1 for n, each in zip(near.grid.shape, single, strict=True))
        image, near = image.pooled(whole), near.pooled(whole)
    found = matches(image.features, near, far, reach, config.refine.axes)
    to_mm = found.points.grid.index_to_point()
    fixed, moving = (transform_index(to_mm, each).numpy() for each in (found.points.fixed, found.points.moving))
    moving = moving if images.start is None else images.start.map(moving)
    return Keypoints(found.looked, KnownPoints(fixed, moving, found.points.sd_mm.numpy()))
