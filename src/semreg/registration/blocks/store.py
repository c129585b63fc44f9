"""Files between the processes of a blockwise registration, and what a run that was ended has left to go on from.

Each file appears whole or not at all. What was computed is found by what it was computed from, so that a run that is
started again computes nothing twice and comes to the same result, bit by bit. Knows nothing of images.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Arrays = Mapping[str, Any]


def digest(x: Tensor) -> str:
    """By which a tensor is known: of its bytes."""
    return hashlib.sha256(np.ascontiguousarray(x.detach().cpu().numpy()).tobytes()).hexdigest()[:24]


@dataclass(frozen=True)
class Store:
    """A folder for files that come and go."""

    folder: Path

    def inner(self, name: str) -> Store:
        """A folder within."""
        return Store(self.folder / name)

    def has(self, name: str) -> bool:
        """Whether the file is there, and so complete."""
        return (self.folder / name).is_file()

    def save(self, name: str, arrays: Arrays) -> None:
        """Write arrays into a file, ``NAME.npz``."""
        found = {key: np.asarray(value) for key, value in arrays.items()}
        self._place(name, lambda path: np.savez(path, allow_pickle=False, **found))

    def load(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a file."""
        with np.load(self.folder / name) as found:
            return {key: found[key] for key in found.files}

    def save_one(self, name: str, x: Tensor) -> None:
        """Write one array, ``NAME.npy``, that others read parts of."""
        self._place(name, lambda path: np.save(path, x.detach().cpu().numpy()))

    def part(self, name: str, part: tuple[slice, ...]) -> Tensor:
        """A part of that array, without reading all of it."""
        found = np.load(self.folder / name, mmap_mode="r")
        return torch.from_numpy(np.array(found[part]))

    def write_text(self, name: str, text: str) -> None:
        """Write a text."""
        self._place(name, lambda path: path.write_text(text, encoding="utf-8"))

    def read_text(self, name: str) -> str:
        """The text of a file."""
        return (self.folder / name).read_text(encoding="utf-8")

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _place(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write beside the place, then rename: two processes that write the same do each other no harm."""
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{secrets.token_hex(6)}-{final.name}")
        try:
            write(partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(final)
        finally:
            partial.unlink(missing_ok=True)
