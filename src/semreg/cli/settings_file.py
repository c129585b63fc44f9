"""Finds the file of settings that holds for a folder, ``semreg.toml``. Reads none, and knows no setting."""

from __future__ import annotations

import os
from pathlib import Path

NAME = "semreg.toml"
ROOT = ".git"
"""What the topmost folder of a project has: a folder, or a file in a work tree."""
OFF = Path("none")
"""What ``--config`` says where nothing shall be looked for."""


def find_settings() -> Path | None:
    """The nearest ``semreg.toml``: in the working folder, else above it, not beyond the folder that has ``.git``.

    Without such a folder the working folder alone counts, so that no file far above is met by chance.

    Returns:
        Its path, relative to the working folder, so that it names no folder; None where there is none.
    """
    here = Path.cwd()
    folders = [here, *here.parents]
    top = next((number for number, folder in enumerate(folders) if (folder / ROOT).exists()), 0)
    found = next((folder / NAME for folder in folders[: top + 1] if (folder / NAME).is_file()), None)
    return None if found is None else Path(os.path.relpath(found, here))
