"""A registration as a transform of TorchIO. Needs the package ``torchio``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torchio

from semreg.config import RegistrationConfig
from semreg.registration.adapters.pairs import Placed, registered


class Register(torchio.SpatialTransform):  # type: ignore[misc]  # of a package without types
    """Bring ``moving`` of a subject onto ``fixed`` and put the warped image in its place.

    Args:
        fixed: name of the image that stays.
        moving: name of the image that is moved.
        along: names of images in the space of the moving one that are brought along; of a ``LabelMap`` at the nearest
            voxel.
        field: name under which the displacement is kept, a ``semreg.Field``; None: it is not.
        config: the settings; None: the defaults.
        options: what else ``semreg.register`` takes, such as ``{"preset": "ct-mr-abdomen"}``.
        **more: what every transform of TorchIO takes, such as ``p``.
    """

    args_names = ("fixed", "moving", "along", "field", "config", "options")

    def __init__(
        self,
        fixed: str = "fixed",
        moving: str = "moving",
        *,
        along: Sequence[str] = (),
        field: str | None = None,
        config: RegistrationConfig | None = None,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Keep what is asked for; nothing is read."""
        super().__init__(**more)
        self.fixed, self.moving, self.along = fixed, moving, tuple(along)
        self.field, self.config, self.options = field, config, options or {}

    def apply_transform(self, subject: Any) -> Any:
        """The subject with the images that were moved."""
        beside = {name: (_placed(subject[name]), isinstance(subject[name], torchio.LabelMap)) for name in self.along}
        warped, others, field = registered(
            _placed(subject[self.fixed]), _placed(subject[self.moving]), beside, self.config, self.options
        )
        for name, image in {self.moving: warped, **others}.items():
            subject[name] = type(subject[name])(tensor=image.data, affine=image.affine)
        if self.field is not None:
            subject[self.field] = field
        return subject


def _placed(image: Any) -> Placed:
    return Placed(image.data, image.affine)
