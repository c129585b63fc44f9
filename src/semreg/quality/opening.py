"""``semreg.open``: the folder of a run gives its result back, with the images where they still are."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from semreg.core.fields import Volume
from semreg.errors import ImageError
from semreg.io.files import in_one_unit, read_image
from semreg.quality.run import read_result
from semreg.registration.result import Registration

logger = logging.getLogger("semreg")


def open(folder: str | Path) -> Registration:  # noqa: A001 - semreg.open, as of other packages
    """The result that ``semreg register`` wrote into a folder.

    Args:
        folder: the folder that was given to ``-o``.

    Returns:
        The result as ``semreg.register`` returns it, with both images where they still are (``result.images``), so that
        it shows itself in a notebook. What was measured is read by ``semreg.quality.read_result``.

    Raises:
        ConfigError: for a folder without a result of a registration, or with a record of another version.
        ImageError: for a warped image that is missing or damaged.
        GeometryError: for a transform that is missing or damaged.
    """
    result = Registration.load(folder)
    found = read_result(folder)
    read = {}
    for role in ("fixed", "moving"):
        path = found.located(role)
        try:
            read[role] = read_image(path or "", series=found.record.inputs[role].series)
        except ImageError as error:
            logger.warning("the %s image is not shown: %s", role, error)
    volumes: dict[str, Volume] = {role: image.volume for role, image in in_one_unit(read).items()}
    return replace(result, kept=(volumes.get("fixed"), volumes.get("moving")))
