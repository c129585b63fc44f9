"""A registration as a dictionary transform of MONAI. Needs the package ``monai``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import MapTransform

from semreg.config import RegistrationConfig
from semreg.registration.adapters.pairs import Placed, registered


class Registerd(MapTransform):  # type: ignore[misc]  # of a package without types
    """Bring ``moving`` onto ``fixed`` and put the warped image in its place.

    Images are MetaTensors of one channel, (1, i, j, k), as ``LoadImaged`` with ``EnsureChannelFirstd`` gives them.

    Args:
        fixed: key of the image that stays.
        moving: key of the image that is moved.
        along: keys of images in the space of the moving one that are brought along.
        labels: those of ``along`` that hold labels: they are read at the nearest voxel.
        field: key under which the displacement is kept, a ``semreg.Field``; None: it is not.
        config: the settings; None: the defaults.
        **options: what else ``semreg.register`` takes, such as ``preset``.
    """

    def __init__(
        self,
        fixed: Hashable = "fixed",
        moving: Hashable = "moving",
        *,
        along: Sequence[Hashable] = (),
        labels: Sequence[Hashable] = (),
        field: Hashable | None = None,
        config: RegistrationConfig | None = None,
        **options: Any,
    ) -> None:
        """Keep what is asked for; nothing is read."""
        super().__init__(keys=[fixed, moving, *along])
        self.fixed, self.moving, self.along, self.labels = fixed, moving, tuple(along), tuple(labels)
        self.field, self.config, self.options = field, config, options

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the images that were moved."""
        found = dict(data)
        beside = {str(key): (_placed(found[key]), key in self.labels) for key in self.along}
        warped, others, field = registered(
            _placed(found[self.fixed]), _placed(found[self.moving]), beside, self.config, self.options
        )
        found[self.moving] = MetaTensor(warped.data, affine=warped.affine)
        for key in self.along:
            found[key] = MetaTensor(others[str(key)].data, affine=others[str(key)].affine)
        if self.field is not None:
            found[self.field] = field
        return found


def _placed(image: Any) -> Placed:
    """A MetaTensor; a tensor without a place has voxels of 1 mm."""
    affine = image.affine.cpu().numpy() if isinstance(image, MetaTensor) else np.eye(4)
    return Placed(image.as_tensor() if isinstance(image, MetaTensor) else image, affine)
