"""``IMPACTReg`` with the arguments of the public loss of that name, for scripts that were written for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from semreg.config import ModelConfig
from semreg.core.sampling import resample
from semreg.distances import DISTANCES
from semreg.nn.loss import ImpactLoss
from semreg.runtime.settings import require

NAMES = {row.itk_name: name for name, row in DISTANCES.rows.items() if row.itk_name}
"""What IMPACT calls a distance, and its name here."""


class IMPACTReg(torch.nn.Module):
    """The distance of the features of one TorchScript model, the weighted sum over its layers, as ``IMPACTReg`` has it.

    An ``ImpactLoss`` that shows the model the intensities, voxels and axes as they come, whatever
    the catalogue says of it. Nothing is downloaded: ``semreg models fetch`` does that.

    Boussot et al., IMPACT, arXiv:2503.24121; github.com/vboussot/ImpactLoss.

    Args:
        model_name: a file, or a model of the catalogue by its name or its path in the zoo (``TS/M730.pt``).
        shape: voxels an axis that images are resampled to, as many numbers as the model has dimensions; 0 everywhere:
            images stay as they are. A 2-D model sees volumes slice by slice along the first axis.
        in_channels: channels that the model takes; a grey image is repeated.
        weights: one for each layer, the first ones of the model; it computes no others.
        pca: principal components of each layer that are compared, 0: all channels.
        distance: ``L1``, or another one by the name that it has in IMPACT or here.

    Raises:
        ModelNotFoundError, ModelError: for a model that is not there, or is none.
        ConfigError: for another number of dimensions than 2 or 3, for weights that are none, and for an unknown
            distance.
    """

    def __init__(
        self,
        model_name: str,
        shape: Sequence[int] = (0, 0),
        in_channels: int = 1,
        weights: Sequence[float] = (1.0,),
        pca: int = 0,
        distance: str = "L1",
    ) -> None:
        """Load the model."""
        super().__init__()
        dimension = len(shape)
        require(dimension in (2, 3) and min(shape) >= 0, "shape of 2 or 3 sizes in voxels, or 0s", tuple(shape))
        self.shape = tuple(shape) if all(shape) else None
        as_it_comes = ("spacing_mm=none", "axes=none", "patch=none", "normalisation.kind=none")
        entry = ModelConfig(
            model=model_name,
            spec=(f"dimension={dimension}", f"channels={in_channels}", *as_it_comes),
            layers=tuple(range(len(weights))),
            distance=(NAMES.get(distance, distance),),
            weight=tuple(weights),
            pca=pca,
        )
        self.loss = ImpactLoss(entry, dimension=2 if dimension == 2 else 3)

    def forward(
        self,
        output: Shaped[Tensor, "n c *s"],
        target: Shaped[Tensor, "n c *s"],
        mask: Shaped[Tensor, "n 1 *s"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of two batches.

        Args:
            output: the warped images, (N, C, y, x) or (N, C, z, y, x).
            target: the images that they are to match, of the same shape.
            mask: where the images count, (N, 1, *S) in 0..1 or bool; None: everywhere.

        Returns:
            The loss, a scalar.
        """
        given = [output, target] if mask is None else [output, target, mask.to(torch.float32)]
        seen = [self._seen(images) for images in given]
        return self.loss(*seen)  # type: ignore[no-any-return]

    def _seen(self, images: Tensor) -> Tensor:
        """The images as the model sees them."""
        if self.loss.dimension == 2 and images.ndim == 5:
            images = images.movedim(2, 1).flatten(0, 1)
        sizes = tuple(images.shape[2:])
        if self.shape is None or sizes == self.shape or len(sizes) != len(self.shape):
            return images
        scale = np.array(sizes) / self.shape
        matrix = np.diag([*scale, 1.0])
        matrix[:-1, -1] = (scale - 1) / 2  # the boxes of both have the same edges
        return torch.stack([resample(image.to(torch.float32), matrix, self.shape) for image in images])
