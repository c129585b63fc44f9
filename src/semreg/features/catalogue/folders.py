"""Where the files of models are looked for: folders that were fetched into or that somebody copied. No network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semreg.errors import ModelNotFoundError
from semreg.features.catalogue.entries import find
from semreg.features.catalogue.lock import read_lock, verify


def default_folder() -> Path:
    """The folder that models are fetched into where none is named: ``~/.cache/semreg/models``."""
    return Path.home() / ".cache" / "semreg" / "models"


def locate(name: str, folders: Sequence[str | Path]) -> Path:
    """The file of the model called ``name`` in the first of ``folders`` that has it.

    A folder may be laid out as the repository is (``TS/M730.pt``) or hold the bare file (``M730.pt``). Where the folder
    has a lock that knows the model, and where the catalogue knows its checksum, the file is verified.
    Raises ModelNotFoundError where no folder has it, ModelError where it is another file than the lock says.
    """
    entry = find(name)
    for folder in map(Path, folders):
        for path in (folder / entry.path, folder / Path(entry.path).name):
            if path.is_file():
                verify(path, entry.spec.sha256, "the catalogue's")
                known = read_lock(folder).get(entry.name)
                verify(path, known.sha256 if known else None, "when it was fetched")
                return path
    looked = ", ".join(str(folder) for folder in folders) or "no folder at all"
    raise ModelNotFoundError(
        f"expected {entry.path} of the model {entry.name}, got nothing in {looked}: "
        f"run `semreg models fetch {entry.name}`, or name the folder that holds it"
    )
