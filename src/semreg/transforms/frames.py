"""Whether a registration object of DICOM is one of the images it is used with, by their frames of reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from semreg.errors import ConfigError
from semreg.io.dicom_objects.registration_maps import frames_of, is_registration
from semreg.io.patients import Origin, say_if_two

logger = logging.getLogger("semreg")


def check_frames(
    transforms: Sequence[Path], origins: Mapping[str, Origin | None], *, inverse: bool = False, private: bool = False
) -> None:
    """Refuse a registration object that leads the other way, and say where it is of other images or another patient.

    Args:
        transforms: the files of a transform; nothing is known of several, and of one that is no such object.
        origins: of the ``fixed`` and the ``moving`` image, or of one of them; None: it is in no DICOM.
        inverse: whether the inverse is meant: then ``fixed`` is the side that it starts from.
        private: name no patient.

    Raises:
        ConfigError: where the frames of reference say that the sides are exchanged.
    """
    if len(transforms) != 1 or not is_registration(transforms[0]):
        return
    path = transforms[0]
    frames, own = frames_of(path)
    start, end = frames[::-1] if inverse else frames
    known = {name: each.frame for name, each in origins.items() if each is not None and each.frame}
    expected = {"fixed": start, "moving": end}
    wrong = [name for name, frame in known.items() if expected[name] not in ("", frame)]
    turned = {"fixed": end, "moving": start}
    if wrong and all(turned[name] == frame for name, frame in known.items()):
        raise ConfigError(
            f"expected a registration that leads from the frame of reference of the {' and the '.join(known)} image "
            f"as it is used, got {path} the other way round: give --inverse to apply, or leave it out there, or "
            "write the other way with semreg invert"
        )
    if wrong:
        logger.warning(
            "%s is a registration of other images by its frames of reference than the %s image", path, wrong[0]
        )
    images = {f"{name} image": each for name, each in origins.items()}
    say_if_two({"registration": Origin(own, frames[0]), **images}, private=private)
