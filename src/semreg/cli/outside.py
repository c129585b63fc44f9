"""The flag that says what is beyond the box of a field, for all commands that use transforms. Loads nothing heavy."""

from __future__ import annotations

from typing import Annotated, Literal

from semreg.cli.panels import flag

Beyond = Literal["continue", "identity", "background"]
"""The values of ``semreg.transforms.Outside``."""

OUTSIDE_HELP = "Beyond the box of a field: identity, as ITK; continue its border; background: nothing is known."
OutsideBox = Annotated[Beyond, flag(OUTSIDE_HELP, None, "--outside")]
